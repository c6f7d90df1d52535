"""The end of a worker, with real libraries: helpers are not waited for, and what they hold comes out."""

import http.server
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from .conftest import Server, is_dead, wait_until

# A stop that waits for nobody takes one; far from the graceful timeout here.
MOST_STOP_SECONDS = 15.0
ALL = sorted(["span-one", "line-one", "event-one", "call-0", "call-1", "call-2"])


@pytest.fixture
def sink() -> Iterator[Any]:
    """A server that notes what it is told; `told` and `url`."""
    told: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.path.strip("/"))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.told = told  # type: ignore[attr-defined]
        server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def serve(start: Callable[..., Server], sink: Any) -> Callable[..., Server]:
    def run(**settings: str) -> Server:
        return start(
            {
                "PYTHONPATH": str(Path(__file__).parent / "apps"),
                "WSGI_APP": "stopping:app",
                "WEB_CONCURRENCY": "1",
                "SINK": sink.url,
                "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "60",
                **settings,
            }
        ).wait_ready()

    return run


@pytest.mark.parametrize("async_mode", ["threading", "gevent"])
@pytest.mark.parametrize("how", ["stop", "reload", "recycle"])
def test_exporters_lose_nothing_and_helpers_hold_nothing(
    serve: Callable[..., Server], sink: Any, async_mode: str, how: str
) -> None:
    settings = {"GREENROOM_MAX_REQUESTS": "3"} if how == "recycle" else {}
    server = serve(ASYNC_MODE=async_mode, **settings)
    (worker,) = server.workers()
    requests.get(server.url + "/work", timeout=30)
    began = time.monotonic()
    if how == "stop":
        assert server.stop() == 0
    elif how == "reload":
        server.signal(signal.SIGHUP)
    else:
        for _ in range(3):
            requests.get(server.url + "/readyz", timeout=30)
    wait_until(lambda: is_dead(worker), "the worker is gone")
    took = time.monotonic() - began

    assert sorted(told for told in sink.told if told) == ALL
    assert took < (MOST_STOP_SECONDS if how == "stop" else 3 * MOST_STOP_SECONDS)
    assert "Traceback" not in server.text()
    assert "being finalized" not in server.text()


def test_processes_of_an_executor_end_with_their_worker(serve: Callable[..., Server]) -> None:
    server = serve()
    assert requests.get(server.url + "/process", timeout=60).text == "32"
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert len(children) >= 2

    assert server.stop() == 0

    assert not [child for child in children if not is_dead(child)]


def test_thread_that_is_no_daemon_is_joined_and_named(serve: Callable[..., Server]) -> None:
    server = serve(CONSUMER_SECONDS="4")

    began = time.monotonic()
    server.stop()

    assert time.monotonic() - began < MOST_STOP_SECONDS
    if "can't exit yet" in server.text():  # it had not ended before
        assert "thread 'my-consumer'" in server.text()


@pytest.mark.parametrize("what", ["consumer", "call"])
def test_exit_is_bounded_by_the_graceful_timeout_and_its_holder_named(serve: Callable[..., Server], what: str) -> None:
    settings = {"CONSUMER_SECONDS": "3600"} if what == "consumer" else {}
    server = serve(GREENROOM_GRACEFUL_TIMEOUT_SECONDS="4", **settings)
    if what == "call":
        requests.get(server.url + "/hang", timeout=30)
    (worker,) = server.workers()

    assert server.stop() == 0

    assert is_dead(worker)
    named = "thread 'my-consumer'" if what == "consumer" else "concurrent/futures/thread.py"
    lines = [line for line in server.text().splitlines() if "can't exit yet" in line or "exits without" in line]
    assert [named in line for line in lines] == [True, True], lines
