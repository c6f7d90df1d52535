"""Applications that answer when they are told to, and requests that end before."""

from collections.abc import Callable, Iterable
from typing import Any

from gevent.event import Event

from greenroom import deadline

from .harness import turn, wait_until

SOON = b"X-Request-Timeout-Ms: 50\r\n"
GET = b"GET /slow?token=1 HTTP/1.1\r\nHost: x\r\n" + SOON + b"\r\n"
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Slow:
    """An application that answers when it is told to, and by no means before."""

    def __init__(self, answer: Wsgi) -> None:
        self.answer = answer
        self.goes_on = Event()
        self.is_over = False
        self.error: BaseException | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/quick":
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        try:
            with deadline.unbounded():
                self.goes_on.wait()
            return self.answer(environ, start_response)
        except BaseException as exc:
            self.error = exc
            raise
        finally:
            self.is_over = True

    def finish(self) -> None:
        self.goes_on.set()
        wait_until(lambda: self.is_over, "the application has ended")
        turn(5)


def simple(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "4")])
    return [b"late"]
