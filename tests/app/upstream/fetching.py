"""Calls of upstreams as tests make them, and threads that have to end."""

import threading
from collections.abc import Callable
from typing import Any

from app.upstream import Fetcher, Outcome, Target
from tests.app.api.upstreams import Behaviour, upstream

LIMIT = 100_000
SHORT_MS = 200
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def fetcher(**kwargs: Any) -> Fetcher:
    settings = {"allow_private": True, "response_bytes": LIMIT, "redirects": 3, "budget_ms": 10_000}
    return Fetcher(**(settings | kwargs))


def fetch_one(url: str, timeout_ms: int = 5000, **kwargs: Any) -> Outcome:
    (outcome,) = fetcher(**kwargs).fetch_all([Target("it", url, timeout_ms)])
    return outcome


def fetch_from(behaviour: Behaviour, timeout_ms: int = 5000, **kwargs: Any) -> Outcome:
    with upstream(behaviour) as server:
        return fetch_one(server.url(), timeout_ms, **kwargs)


Names = dict[str, Callable[[], list[str]]]


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]
