"""An application that reads bodies as its path says, and requests for it."""

from collections.abc import Callable
from typing import Any

import gevent
import gevent.event

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"


class App:
    """Answers with its path and what it read; the path says how it reads, and `release` lets /wait go on."""

    def __init__(self) -> None:
        self.release = gevent.event.Event()
        self.running = 0
        self.paths: list[str] = []
        self.errors: list[BaseException] = []
        self.gone: list[bool] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        self.paths.append(path)
        self.running += 1
        try:
            if path == "/wait":
                self.release.wait()
                self.gone.append(
                    environ["greenroom.is_client_gone"]() if "greenroom.is_client_gone" in environ else False
                )
            body = environ["wsgi.input"].read(0 if path == "/ignore" else 3 if path == "/some" else -1)
        except BaseException as exc:
            self.errors.append(exc)
            raise
        finally:
            self.running -= 1
        text = path.encode() + b":" + body
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]
