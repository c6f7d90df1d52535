"""Flask-SocketIO in both of its ways to wait, by polling and by WebSocket, for longer than every timeout."""

import gc
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
import socketio

from .conftest import Server, wait_until


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("async_mode", ["threading", "gevent"])
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_socketio_lives_past_the_budget_sees_clients_leave_and_holds_no_stop(
    start: Callable[..., Server], async_mode: str, transport: str
) -> None:
    server = start(
        {
            "PYTHONPATH": str(Path(__file__).parent / "apps"),
            "WSGI_APP": "chat:app",
            "WEB_CONCURRENCY": "1",
            "ASYNC_MODE": async_mode,
            "GREENROOM_REQUEST_BUDGET_MILLISECONDS": "3000",
            "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "60",
        }
    ).wait_ready()
    echoed: list[str] = []
    ticked: list[int] = []
    gone: list[bool] = []
    with socketio.SimpleClient() as leaving:
        leaving.connect(server.url, transports=[transport], wait_timeout=30)
        client = socketio.Client(reconnection=False)
        client.on("echoed", echoed.append)
        client.on("ticked", ticked.append)
        client.on("disconnect", lambda *_: gone.append(True))
        client.connect(server.url, transports=[transport], wait_timeout=30)
        client.emit("tick")
        wait_until(lambda: len(ticked) == 20, "4 s of ticks have come, which is longer than the budget")
        for number in range(5):
            client.emit("echo", str(number))
        wait_until(lambda: len(echoed) == 5, "all is echoed")
        assert requests.get(server.url + "/present", timeout=30).text == "2"
    wait_until(lambda: requests.get(server.url + "/present", timeout=30).text == "1", "the other one has left")

    began = time.monotonic()
    assert server.stop() == 0
    took = time.monotonic() - began
    wait_until(lambda: gone, "the client knows")
    client.disconnect()

    assert (echoed, ticked) == ([str(number) for number in range(5)], list(range(20)))
    assert took < 20.0
    assert "Traceback" not in server.text()
    assert " 504" not in server.text()
    assert "budget" not in server.text()
    del client, leaving
    gc.collect()  # what the client leaves open is found in this test, which does not mind
