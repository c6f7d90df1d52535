"""Applications that answer what a test wants, and requests for them."""

from collections.abc import Callable, Iterator
from typing import Any

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
Start = Callable[..., Callable[[bytes], object]]


def answers(*items: bytes, status: str = "200 OK", headers: tuple[tuple[str, str], ...] = ()) -> Any:
    def application(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        start_response(status, list(headers))
        yield from items

    return application
