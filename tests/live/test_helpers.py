"""Helpers that a library starts in a request outlive that request, whatever becomes of it."""

import importlib.util
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import Server

APPS = Path(__file__).parent / "apps"
LIBRARIES = {"psycopg-pool": "psycopg_pool", "opentelemetry": "opentelemetry", "apscheduler": "apscheduler"}
HELPERS = ["pool-of-threads", "queue-listener", "timer", "loop", *LIBRARIES]


@pytest.mark.parametrize("how", ["its budget ends", "its client leaves"])
@pytest.mark.parametrize("name", HELPERS)
def test_helper_outlives_the_request_that_started_it(
    share: Callable[..., Server], postgres_url: str, name: str, how: str
) -> None:
    if name in LIBRARIES and importlib.util.find_spec(LIBRARIES[name]) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    environ = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(APPS), os.environ.get("PYTHONPATH")])),
        "WSGI_APP": "helpers:app",
        "WEB_CONCURRENCY": "1",
        "GREENROOM_CLEAN_UP_SECONDS": "1",
        "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "2",
        "HELPERS_DATABASE_URL": postgres_url,
    }
    if how == "its budget ends":
        environ["GREENROOM_REQUEST_BUDGET_MILLISECONDS"] = "1500"
    server = share(environ).wait_ready("/")

    if how == "its budget ends":
        assert requests.get(f"{server.url}/{name}?slow=30", timeout=20).status_code == 504
    else:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(f"GET /{name}?slow=30 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(1.5)  # until it has started its helper, and sleeps

    for _ in range(3):
        assert requests.get(f"{server.url}/{name}", timeout=20).text == "works"
