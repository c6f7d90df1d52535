"""What each test of calls to upstreams needs: names that exist, and no thread that goes on afterwards."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.api.upstreams import eventually

from .fetching import Names, fetch_threads


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names that exist for this test, with what gives their addresses each time they are looked up."""
    known: Names = {}
    really = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return really(host, port, *args, **kwargs)
        return [found for address in known[host]() for found in really(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not fetch_threads()), f"fetches still run: {fetch_threads()}"
