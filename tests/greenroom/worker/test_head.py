"""The fast way through a head gives what gunicorn's own parser gives, or stands aside."""

import itertools
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from greenroom.worker.head import REMEMBERED_FIELDS, HeadParser, demand

from .fuzz import examples

PEER = ("127.0.0.1", 40000)
SERVER = ("127.0.0.1", 8000)
FINE_HEADERS = [
    ("User-Agent", "wrk"),
    ("Accept", "*/*"),
    ("Cookie", "a=b; c=d"),
    ("Content-Length", "5"),
    ("Content-Type", "text/plain"),
    ("Connection", "Keep-Alive"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Ssl", "on"),
    ("X-Forwarded-For", "1.2.3.4"),
    ("X-Tab", "a\tb"),
    ("X-Empty", ""),
    ("Proxy", "http://evil"),
]
ODD_HEADERS = [
    ("host", "a:80"),
    ("Host", "a b"),
    ("Content-Length", "05"),
    ("Content-Length", "+5"),
    ("Content-Length", "5"),
    ("Transfer-Encoding", "chunked"),
    ("Expect", "100-continue"),
    ("Connection", "close"),
    ("Connection", "close, TE"),
    ("X-Forwarded-Proto", "http"),
    ("X_Forwarded_For", "1.2.3.4"),
    ("Content_Length", "5"),
    ("Script-Name", "/x"),
    ("Bad Name", "x"),
    ("", "x"),
    ("X-Control", "a\x01b"),
    ("X-Del", "a\x7fb"),
    ("X-Latin", "caf\xe9"),
]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "PATCH", "CONNECT", "get", "G#T", "PURGE", "X" * 21, ""]
TARGETS = [
    "/",
    "/a%20b?x=1&y",
    "//double",
    "/#f",
    "*",
    "http://h/p?q",
    "h:80",
    "/\xe9",
    "/a?b?c",
    "/a;b",
    "",
    "/%zz",
    "/a\tb",
]
VERSIONS = ["HTTP/1.0", "HTTP/2.0", "HTTP/1.10", "http/1.1", "HTTP/1.1 "]
SPACES = ["", " ", "  ", "\t"]
ENDS = ["\n", "\r", "\r\n ", "\r\r\n"]
# Ready made: what hypothesis has to choose is what costs its time.
REQUEST_LINES = [
    *(f"{method} {target} HTTP/1.1" for method in METHODS[:5] for target in [*TARGETS, *["/plain?x=1"] * len(TARGETS)]),
    *(f"{method} /plain HTTP/1.1" for method in METHODS),
    *(f"GET /plain {version}" for version in VERSIONS),
]
FINE_LINES = [f"{name}:{space}{value}{space}" for name, value in FINE_HEADERS for space in SPACES]
ODD_LINES = [f"{name}: {value}" for name, value in ODD_HEADERS]


@st.composite
def heads(draw: Any) -> bytes:
    """Request heads, mostly valid, with every kind of flaw now and then."""
    hosts = draw(st.sampled_from([["Host: example.org"]] * 9 + [[]]))
    fine = draw(st.lists(st.sampled_from(FINE_LINES), max_size=4, unique_by=lambda line: line.partition(":")[0]))
    odd = draw(st.sampled_from([[]] * len(ODD_LINES) + [[line] for line in ODD_LINES]))
    end = draw(st.sampled_from(["\r\n"] * 8 * len(ENDS) + ENDS))
    lines = [draw(st.sampled_from(REQUEST_LINES)), *hosts, *fine, *odd]
    return (end.join(lines) + "\r\n\r\n").encode("latin-1")


@pytest.fixture(scope="module")
def cfg() -> Config:
    return Config()


@pytest.fixture(scope="module")
def parser(cfg: Config) -> HeadParser:
    """One for all heads of a test, as in a worker: what it remembers of one must be right for the next."""
    return HeadParser(cfg)


def reference(cfg: Config, head: bytes, server: Any = SERVER) -> tuple[dict[str, Any], Any]:
    """gunicorn's environ and request for `head`. Raises whatever gunicorn raises."""
    request = Request(cfg, IterUnreader([head]), PEER)
    _, environ = wsgi.create(request, None, PEER, server, cfg)
    return environ, request


def base_environ(cfg: Config, script_name: str = "") -> dict[str, Any]:
    environ = wsgi.base_environ(cfg)
    environ["wsgi.url_scheme"] = "http"
    environ["SERVER_PROTOCOL"] = "HTTP/1.1"
    environ["SCRIPT_NAME"] = script_name
    environ["SERVER_NAME"], environ["SERVER_PORT"] = SERVER[0], str(SERVER[1])
    return environ


# Entries that belong to the connection or to the response, not to the head.
ELSEWHERE = ("wsgi.input", "wsgi.errors", "wsgi.early_hints", "gunicorn.socket", "REMOTE_ADDR", "REMOTE_PORT")


def assert_same(cfg: Config, parsed: Any, environ: dict[str, Any], request: Any) -> None:
    for key in ELSEWHERE:
        environ.pop(key, None)
        parsed.environ.pop(key, None)
    assert parsed.environ == environ
    demand(request)  # where HTTP/1.1 asks for more than gunicorn does
    assert parsed.is_kept_alive is not request.should_close()
    assert parsed.content_length == request.body.reader.length


@given(head=heads())
@examples(300)
def test_a_plain_head_means_what_gunicorn_says_it_means(cfg: Config, parser: HeadParser, head: bytes) -> None:
    first, second = (parser.parse(head, base_environ(cfg), peer_is_trusted=True) for _ in range(2))

    assert (first is None) == (second is None)
    if first is None:
        return
    assert_same(cfg, first, *reference(cfg, head))
    first.environ.clear()  # what an application does to its environ is its own business
    assert_same(cfg, second, *reference(cfg, head))


def test_any_two_fields_together_mean_what_gunicorn_says_they_mean(cfg: Config, parser: HeadParser) -> None:
    fields = [f"{name}: {value}" for name, value in FINE_HEADERS + ODD_HEADERS]
    plain = 0
    for first, second in itertools.product(fields, fields):
        head = f"GET / HTTP/1.1\r\nHost: x\r\n{first}\r\n{second}\r\n\r\n".encode("latin-1")

        parsed = parser.parse(head, base_environ(cfg), peer_is_trusted=True)

        if parsed is not None:
            plain += 1
            assert_same(cfg, parsed, *reference(cfg, head))
    assert plain > 100


@given(head=heads())
@examples(100)
def test_a_plain_head_over_a_unix_socket_means_what_gunicorn_says_it_means(
    cfg: Config, parser: HeadParser, head: bytes
) -> None:
    base = base_environ(cfg)
    del base["SERVER_NAME"], base["SERVER_PORT"]

    parsed = parser.parse(head, base, peer_is_trusted=True)

    if parsed is not None:
        assert_same(cfg, parsed, *reference(cfg, head, "/run/socket"))


@pytest.mark.parametrize("target", ["/app", "/app/", "/app/x%20y?z", "/application", "/other", "/", "/%61pp/x"])
def test_a_script_name_is_cut_off_the_path_as_gunicorn_does(
    cfg: Config, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv("SCRIPT_NAME", "/app")
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    parsed = HeadParser(cfg, "/app").parse(head, base_environ(cfg, "/app"), peer_is_trusted=True)

    if target.startswith("/app"):
        assert_same(cfg, parsed, *reference(cfg, head))
    else:  # gunicorn refuses it
        assert parsed is None


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /a%20b?x=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n",
    ],
)
def test_everyday_heads_are_plain(cfg: Config, head: bytes) -> None:
    assert HeadParser(cfg).parse(head, base_environ(cfg), peer_is_trusted=True) is not None


def test_forwarding_headers_of_a_stranger_do_not_count(cfg: Config) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n"

    parsed = HeadParser(cfg).parse(head, base_environ(cfg), peer_is_trusted=False)

    assert parsed is not None
    assert parsed.environ["wsgi.url_scheme"] == "http"


def test_names_from_clients_do_not_fill_the_memory(cfg: Config) -> None:
    parser = HeadParser(cfg)

    for number in range(3000):
        parser.parse(b"GET / HTTP/1.1\r\nX-%d: y\r\n\r\n" % number, {}, peer_is_trusted=False)

    assert len(parser._keys) <= 1000


def test_fields_from_clients_do_not_fill_the_memory(cfg: Config) -> None:
    parser, base = HeadParser(cfg), base_environ(cfg)

    for number in range(3 * REMEMBERED_FIELDS):
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX: %d\r\n\r\n" % number, base, peer_is_trusted=False)
    parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"y" * 5000), base, peer_is_trusted=False)

    assert 0 < len(parser._fields) <= REMEMBERED_FIELDS
    assert max(len(data) for data in parser._fields) < 100


def test_remembered_fields_say_https_only_where_the_peer_is_trusted(cfg: Config, parser: HeadParser) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nX-This: test\r\n\r\n"

    schemes = []
    for is_trusted in (True, False, True):
        parsed = parser.parse(head, base_environ(cfg), peer_is_trusted=is_trusted)
        assert parsed is not None
        schemes.append(parsed.environ["wsgi.url_scheme"])

    assert schemes == ["https", "http", "https"]
