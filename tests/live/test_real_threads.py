"""Real threads block where greenlets wait, and have no event loop of their own: one that ends can end the process."""

import os
from collections.abc import Callable
from pathlib import Path

import requests

from .conftest import Server, wait_until

APPS = Path(__file__).parent / "apps"


def test_no_blocking_call_makes_an_event_loop_in_a_real_thread(start: Callable[..., Server]) -> None:
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
    server = start({"PYTHONPATH": path, "WSGI_APP": "real_threads:app", "WEB_CONCURRENCY": "1"}).wait_ready("/")
    calls = requests.get(server.url, timeout=30).json()

    said = {name: requests.get(f"{server.url}/{name}", timeout=60).text for name in calls}

    assert len(said) > 10
    assert {name: words for name, words in said.items() if words != "well"} == {}
    assert requests.get(f"{server.url}/child-of-a-greenlet", timeout=60).text == "6"


def test_counts_that_the_loop_loses_to_real_threads_do_not_end_it(start: Callable[..., Server]) -> None:
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
    server = start({"PYTHONPATH": path, "WSGI_APP": "real_threads:app", "WEB_CONCURRENCY": "1"}).wait_ready("/")
    worker = int(requests.get(f"{server.url}/lose-counts", timeout=30).text)

    wait_until(lambda: requests.get(f"{server.url}/lost-counts", timeout=30).json() == [worker, 1], "they are lost")

    for _ in range(3):
        assert requests.get(f"{server.url}/lost-counts", timeout=30).json() == [worker, 1], "the worker goes on"
