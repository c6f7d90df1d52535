"""An application with huge bodies, to measure how a server moves them while others wait.

/up        reads the body in pieces and tells how long it was
/down      answers with DOWN_BYTES in pieces of a megabyte; /down?one in a single piece, /down?file from a file
/healthz   and everything else answer at once
"""

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

BODY = b"Hello, world!\n"
DOWN_BYTES = 300 << 20
WHOLE = bytes(DOWN_BYTES)  # made here, because making it takes a view long
PIECE = bytes(1 << 20)
PIECES = DOWN_BYTES // len(PIECE)
READ_BYTES = 65_536

stored = tempfile.NamedTemporaryFile()  # noqa: SIM115 - until the end of the worker
for _ in range(PIECES):
    stored.write(PIECE)
stored.flush()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/down":
        start_response("200 OK", [("Content-Length", str(DOWN_BYTES))])
        return down(environ)
    body = str(read(environ["wsgi.input"])).encode() if environ["PATH_INFO"] == "/up" else BODY
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def read(stream: Any) -> int:
    count = 0
    while piece := stream.read(READ_BYTES):
        count += len(piece)
    return count


def down(environ: dict[str, Any]) -> Iterable[bytes]:
    match environ["QUERY_STRING"]:
        case "one":
            return [WHOLE]
        case "file":
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](open(stored.name, "rb"))  # noqa: SIM115
            return wrapped
    return (PIECE for _ in range(PIECES))
