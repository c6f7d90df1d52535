"""Requests and statements as people name them, for errors and logs."""

from typing import Any

from .. import redaction
from ..in_flight import Record


def request_name(record: Record | None) -> str:
    """Method and path, as far as anybody may see it, and the request's id where it has one."""
    if record is None:
        return "something outside of requests"
    name = request_route(record)
    return f"{name} ({record.id})" if record.id else name


def request_route(record: Record) -> str:
    """Method and path, as far as anybody may see it."""
    environ = record.environ or {}
    return f"{environ.get('REQUEST_METHOD', '')} {redaction.path(environ.get('PATH_INFO', ''))}".strip() or "a request"


def shortened(sql: Any, most: int = 100) -> str:
    """The beginning of a statement, on one line."""
    text = " ".join(str(sql).split())
    return text if len(text) <= most else text[: most - 1] + "…"


class Once:
    """Which things have been said. Each is said once; when too many have been, no more are."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.said: set[str] = set()

    def is_new(self, what: str) -> bool:
        if what in self.said or len(self.said) >= self.most:
            return False
        self.said.add(what)
        return True
