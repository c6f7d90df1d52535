"""What a worker says before it is ended: what it was doing. And one that looks at nothing."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable

import psutil
import requests

from .conftest import Server, wait_until
from .test_insight import APP, line_of


def test_worker_that_is_given_up_says_what_it_was_doing(start: Callable[..., Server]) -> None:
    environ = {**APP, "GREENROOM_TIMEOUT_SECONDS": "5", "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "2"}
    server = start(environ)
    server.wait_ready()
    for path in ("/sleep/30000", "/regex/40"):
        threading.Thread(target=_ask_in_vain, args=(server.url + path,), daemon=True).start()
        time.sleep(0.3)

    wait_until(lambda: "is killed: its loop did not turn for 5 s" in server.text(), "the last words")
    wait_until(lambda: "has ended; its threads were:" in server.text(), "the stacks from the signal handler")
    text = server.text()
    stacks = text.partition("has ended; its threads were:\n")[2].partition("\n[")[0]
    assert re.search(r'File ".*tests/live/apps/insight.py", line \d+ in backtrack', stacks)
    assert re.search(r"request \S+ GET /sleep/30000 \(route /sleep/<int:ms>\), [\d.]+ s old, sleep", text)
    assert re.search(r"request \S+ GET /regex/40 .*running", text)
    assert f"{line_of('the line that holds the GIL')} backtrack" in text


def test_worker_that_is_told_to_go_at_once_says_what_it_was_doing(start: Callable[..., Server]) -> None:
    server = start(APP)
    server.wait_ready()
    threading.Thread(target=_ask_in_vain, args=(server.url + "/sleep/30000",), daemon=True).start()
    time.sleep(0.5)
    os.kill(psutil.Process(server.process.pid).children()[0].pid, signal.SIGQUIT)

    wait_until(lambda: "is told to go at once; 1 requests in flight" in server.text(), "the last words")


def test_worker_over_its_memory_limit_says_what_it_was_doing(start: Callable[..., Server]) -> None:
    server = start({**APP, "GREENROOM_WORKER_MEMORY_MB": "10"})

    wait_until(lambda: "is over its memory limit: " in server.text(), "the last words")

    assert re.search(r"is over its memory limit: \d+ MB; greenlets: .*; \d+ requests in flight", server.text())


def test_without_insight_nothing_is_added(start: Callable[..., Server]) -> None:
    server = start({**APP, "GREENROOM_INSIGHT": "no", "GREENROOM_ACCESS_LOG_FORMAT": "common"})
    server.wait_ready()

    answer = requests.get(f"{server.url}/blocking-sleep/300", timeout=60)

    assert "X-Request-ID" not in answer.headers
    assert "Server-Timing" not in answer.headers
    assert "stall" not in server.text()


def _ask_in_vain(url: str) -> None:
    try:
        requests.get(url, timeout=60)
    except requests.RequestException:
        return
