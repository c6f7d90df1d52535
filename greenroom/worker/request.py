"""The request for gunicorn's logger, hooks and response, where the head was plain."""

from typing import Protocol
from wsgiref.types import InputStream, WSGIEnvironment

ProxyProtocol = dict[str, object]  # what a PROXY line said


class ClientRequest(Protocol):
    """A request as hooks, logs and answers know it, whoever has read it: us, gunicorn, or a stream of HTTP/2."""

    # gunicorn's own requests have it as an attribute, and are given ours.
    proxy_protocol_info: ProxyProtocol | None

    @property
    def method(self) -> str: ...

    @property
    def uri(self) -> str:
        """The target, as the client has sent it."""

    @property
    def path(self) -> str: ...

    @property
    def query(self) -> str: ...

    @property
    def version(self) -> tuple[int, int]: ...

    @property
    def scheme(self) -> str: ...

    @property
    def headers(self) -> list[tuple[str, str]]:
        """(NAME, value) of each."""

    def should_close(self) -> bool: ...

    def force_close(self) -> None: ...


class PlainRequest:
    """A view of the environ; nothing is computed before somebody asks.

    Method and target stay the client's: a middleware may put others into the environ, and an answer to HEAD has no body
    whatever the application took it for.
    """

    __slots__ = ("content_length", "environ", "is_kept_alive", "method", "proxy_protocol_info", "uri")

    version = (1, 1)
    trailers: tuple[tuple[str, str], ...] = ()
    fragment = ""

    def __init__(self, environ: WSGIEnvironment, *, is_kept_alive: bool, content_length: int = 0) -> None:
        self.environ = environ
        self.method: str = environ.get("REQUEST_METHOD", "")
        self.uri: str = environ.get("RAW_URI", "")
        self.content_length = content_length
        self.is_kept_alive = is_kept_alive
        self.proxy_protocol_info: ProxyProtocol | None = None

    def should_close(self) -> bool:
        return not self.is_kept_alive

    def force_close(self) -> None:
        self.is_kept_alive = False

    @property
    def path(self) -> str:
        return self.uri.partition("?")[0]

    @property
    def query(self) -> str:
        return self.uri.partition("?")[2]

    @property
    def scheme(self) -> str:
        return str(self.environ.get("wsgi.url_scheme", "http"))

    @property
    def body(self) -> InputStream | None:
        return self.environ.get("wsgi.input")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """(NAME, value), as gunicorn's requests have them. Exact, because a plain head has no name with `_`."""
        found = []
        for key, value in self.environ.items():
            if key.startswith("HTTP_"):
                found.append((key[5:].replace("_", "-"), value))
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                found.append((key.replace("_", "-"), value))
        return found
