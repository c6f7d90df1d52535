"""The cost of parsing a request's head, to the finished WSGI environ: `python -m benchmarks.parsers`.

    greenroom, known fields     our parser, for a head with fields like the last one's
    greenroom, new fields       the same, when it has to look at each field
    gunicorn                    its own parser and environ, in Python; what decides about a head that is not plain
    httptools, gunicorn_h1c     C parsers, where they are installed; the environ is made from what they say

Each in turn, several times, in this process; the median of the rounds is printed. Nobody else checks here what ours
does (limits, Host, fields that contradict): what the C parsers leave to Python would come on top.
"""

import argparse
import importlib
from collections.abc import Callable
from statistics import median
from timeit import Timer
from typing import Any

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from greenroom.worker.head import HeadParser

HEAD = (
    b"GET /api/boards/demo/results?fresh=1 HTTP/1.1\r\n"
    b"Host: boards.example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0)\r\n"
    b"Accept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Cookie: session=0123456789abcdef\r\n"
    b"\r\n"
)
PEER = ("127.0.0.1", 40_000)
SERVER = ("127.0.0.1", 8000)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parsers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, default=20_000, help="heads in each round (default: 20000)")
    options = parser.parse_args()
    timers = {name: Timer(parse) for name, parse in parsers().items()}
    found: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(options.rounds):
        for name, timer in timers.items():
            found[name].append(timer.timeit(options.times) / options.times)
    print(f"a head of {len(HEAD)} bytes, {options.rounds} rounds of {options.times}")
    for name, seconds in found.items():
        print(f"{name:<26}{median(seconds) * 1e6:7.1f} us")
    return 0


def parsers() -> dict[str, Callable[[], Any]]:
    cfg = Config()
    base = wsgi.base_environ(cfg) | {"SERVER_NAME": SERVER[0], "SERVER_PORT": str(SERVER[1])}
    ours = HeadParser(cfg)

    def forgetful() -> Any:
        ours._fields.clear()
        return ours.parse(HEAD, base, peer_is_trusted=True)

    def gunicorns() -> Any:
        request = Request(cfg, IterUnreader([HEAD]), PEER)
        return wsgi.create(request, None, PEER, SERVER, cfg)

    found: dict[str, Callable[[], Any]] = {
        "greenroom, known fields": lambda: ours.parse(HEAD, base, peer_is_trusted=True),
        "greenroom, new fields": forgetful,
        "gunicorn": gunicorns,
    }
    for name, made in (("httptools", with_httptools), ("gunicorn_h1c", with_h1c)):
        try:
            found[name] = made(importlib.import_module(name), base)
        except ImportError:
            print(f"{name} is not installed, and not measured")
    return found


def with_httptools(httptools: Any, base: dict[str, Any]) -> Callable[[], Any]:
    class Callbacks:
        def __init__(self) -> None:
            self.environ = dict(base)
            self.url = b""

        def on_url(self, url: bytes) -> None:
            self.url += url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.environ[environ_key(name)] = value.decode("latin-1")

    def parse() -> Any:
        callbacks = Callbacks()
        parser = httptools.HttpRequestParser(callbacks)
        parser.feed_data(HEAD)
        return finished(callbacks.environ, parser.get_method(), callbacks.url)

    return parse


def with_h1c(h1c: Any, base: dict[str, Any]) -> Callable[[], Any]:
    def parse() -> Any:
        head = h1c.parse_request(HEAD)
        environ = dict(base)
        for name, value in head["headers"]:
            environ[environ_key(name)] = value.decode("latin-1")
        return finished(environ, head["method"], head["path"])

    return parse


KEYS: dict[bytes, str] = {}


def environ_key(name: bytes) -> str:
    """Remembered, as ours are."""
    if name not in KEYS:
        KEYS[name] = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    return KEYS[name]


def finished(environ: dict[str, Any], method: bytes, target: bytes) -> dict[str, Any]:
    uri = target.decode("latin-1")
    environ["REQUEST_METHOD"] = method.decode("ascii")
    environ["RAW_URI"] = uri
    environ["PATH_INFO"], _, environ["QUERY_STRING"] = uri.partition("?")
    return environ


if __name__ == "__main__":
    raise SystemExit(main())
