"""An application for clients of HTTP/2, and the worker that serves it."""

from collections.abc import Callable, Iterable
from typing import Any

import gevent
import gevent.event

from greenroom.in_flight import OWN, SHIELD, Wait

from ..harness import Ours, serve
from .client import CLEARTEXT

SETTINGS = {"body_timeout_seconds": 1, "send_timeout_seconds": 1}


class App:
    """Answers by the path; what it waits for is `release`."""

    def __init__(self) -> None:
        self.release = gevent.event.Event()
        self.running = 0
        self.seen: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self.shields: list[int] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.seen.append(environ)
        name = environ["PATH_INFO"].strip("/").partition("/")[0]
        self.running += 1
        try:
            answer: Iterable[bytes] = getattr(self, name, self.plain)(environ, start)
            return answer
        except BaseException as exc:
            self.errors.append(exc)
            raise
        finally:
            self.running -= 1

    def plain(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Length", "2"), ("X-Of-App", "yes"), ("Connection", "close")])
        return [b"ok"]

    def wait(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.release.wait()
        return self.plain(environ, start)

    def echo(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        data = environ["wsgi.input"].read()
        start("200 OK", [])
        return [data]

    def large(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        size = int(environ["PATH_INFO"].rpartition("/")[2])
        start("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    def stream(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/event-stream")])
        return Events(self)

    def short(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Length", "10")])
        return [b"short"]

    def fail(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        raise RuntimeError("of the application")

    def fail_late(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [])
        yield b"begun"
        raise RuntimeError("late")

    def hints(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        return self.plain(environ, start)

    def trailers(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["gunicorn.http2.send_trailers"]([("X-Sum", "1")])
        return self.plain(environ, start)

    def take(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        environ["gunicorn.socket"].sendall(b"raw")
        return []

    def peer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [])
        return [str(environ["gunicorn.socket"].getpeername()[1]).encode()]


class Events:
    def __init__(self, app: App) -> None:
        self.app = app
        self.items = iter((b"data: 1\n\n", b"data: 2\n\n"))

    def __iter__(self) -> "Events":
        return self

    def __next__(self) -> bytes:
        item = next(self.items)
        if item.endswith(b"2\n\n"):
            with Wait("lock", "release", OWN):
                self.app.release.wait()
        return item

    def close(self) -> None:
        self.app.shields.append(SHIELD.get())


def site(app: App, **settings: Any) -> Any:
    return serve(Ours, app, cfg=CLEARTEXT, settings={**SETTINGS, **settings})
