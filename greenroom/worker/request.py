"""The request for gunicorn's logger, hooks and response, where the head was plain."""

from typing import Any


class PlainRequest:
    """A view of the environ; nothing is computed before somebody asks.

    Method and target stay the client's: a middleware may put others into the environ, and an answer to HEAD has no body
    whatever the application took it for.
    """

    __slots__ = ("content_length", "environ", "is_kept_alive", "method", "proxy_protocol_info", "uri")

    version = (1, 1)
    trailers: tuple[Any, ...] = ()
    fragment = ""

    def __init__(self, environ: dict[str, Any], *, is_kept_alive: bool, content_length: int = 0) -> None:
        self.environ = environ
        self.method: str = environ.get("REQUEST_METHOD", "")
        self.uri: str = environ.get("RAW_URI", "")
        self.content_length = content_length
        self.is_kept_alive = is_kept_alive
        self.proxy_protocol_info: dict[str, Any] | None = None

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
    def body(self) -> Any:
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
