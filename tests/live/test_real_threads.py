"""Real threads block where greenlets wait, and have no event loop of their own: one that ends can end the process."""

import os
from collections.abc import Callable
from pathlib import Path

import requests

from .conftest import Server

APPS = Path(__file__).parent / "apps"


def test_no_blocking_call_makes_an_event_loop_in_a_real_thread(start: Callable[..., Server]) -> None:
    path = os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")]))
    server = start({"PYTHONPATH": path, "WSGI_APP": "real_threads:app", "WEB_CONCURRENCY": "1"}).wait_ready("/")
    calls = requests.get(server.url, timeout=30).json()

    said = {name: requests.get(f"{server.url}/{name}", timeout=60).text for name in calls}

    assert len(said) > 10
    assert {name: words for name, words in said.items() if words != "well"} == {}
    assert requests.get(f"{server.url}/child-of-a-greenlet", timeout=60).text == "6"
