"""Requests and statements as people name them, for errors and logs."""

from typing import Any

from .. import shown
from ..record import Record


def request_name(record: Record | None) -> str:
    """Method and path, as far as anybody may see it, and the request's id where it has one."""
    if record is None:
        return "something outside of requests"
    environ = record.environ or {}
    name = f"{environ.get('REQUEST_METHOD', '')} {shown.path(environ.get('PATH_INFO', ''))}".strip() or "a request"
    return f"{name} ({record.id})" if record.id else name


def shortened(sql: Any, most: int = 100) -> str:
    """The beginning of a statement, on one line."""
    text = " ".join(str(sql).split())
    return text if len(text) <= most else text[: most - 1] + "…"
