"""Streams of HTTP/2 are requests like any other."""

import logging

import gevent
import gevent.event
import h2.errors
import h2.events
import pytest

from greenroom.in_flight import CLEAN_UP

from ..harness import HEAD_END, Ours, Stock, serve, wait_until
from ..test_tls import CERTIFICATE, KEY, client_context
from .client import CLEARTEXT, HTTP2Client
from .site import App, site


def test_stream_is_answered_as_a_request(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream, head_only = client.ask("/a%20b?q=1"), client.ask("/", "HEAD")
        client.finish(stream, head_only)

        assert client.head(stream) == {**client.head(stream), ":status": "200", "server": "gunicorn", "x-of-app": "yes"}
        assert "connection" not in client.head(stream)
        assert (client.body(stream), client.body(head_only)) == (b"ok", b"")
        assert not running.kind.serving.in_flight


HEADS: dict[str, list[tuple[str, str]]] = {
    "a plain one": [("user-agent", "x"), ("accept", "*/*")],
    "cookies": [("cookie", "a=1"), ("cookie", "b=2")],
    "a field twice": [("x-a", "1"), ("x-a", "2")],
    "trailers are welcome": [("te", "trailers")],
    "an underscore": [("x_a", "1")],
    "a proxy's scheme": [("x-forwarded-proto", "https")],
    "a version": [("version", "3")],
}


@pytest.mark.parametrize("headers", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("path", ["/", "/a%20b?q=1", "//x", "/a#b", "*"])
def test_environ_is_gunicorns(headers: list[tuple[str, str]], path: str) -> None:
    seen = []
    for kind in (Ours, Stock):
        app = App()
        with serve(kind, app, cfg=CLEARTEXT) as running, HTTP2Client(running) as client:
            stream = client.ask(path, "OPTIONS" if path == "*" else "GET", headers=headers)
            client.finish(stream)
        (environ,) = app.seen
        seen.append(
            {k: v for k, v in environ.items() if isinstance(v, str | int) and k not in ("REMOTE_PORT", "SERVER_PORT")}
        )

    assert seen[0] == seen[1]


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
@pytest.mark.parametrize("headers", [[], [("x-forwarded-proto", "http")], [("x-forwarded-proto", "https")]])
def test_scheme_that_a_proxy_claims_is_what_gunicorn_says(scheme: str, headers: list[tuple[str, str]]) -> None:
    seen = []
    for kind in (Ours, Stock):
        app = App()
        with serve(kind, app, cfg=CLEARTEXT) as running, HTTP2Client(running) as client:
            client.finish(client.ask(scheme=scheme, headers=headers))
        seen.append(app.seen[0]["wsgi.url_scheme"])

    assert seen[0] == seen[1]


@pytest.mark.parametrize("scheme", ["http", "https", "ftp"])
def test_scheme_that_a_stranger_claims_is_of_no_account(app: App, scheme: str) -> None:
    cfg = {"http_protocols": "h2,h1", "certfile": str(CERTIFICATE), "keyfile": str(KEY)}
    context = client_context()
    context.set_alpn_protocols(["h2"])
    with serve(Ours, app, cfg={**cfg, "forwarded_allow_ips": "10.9.8.7"}) as running:
        with HTTP2Client(running, context=context) as client:
            client.finish(client.ask(scheme=scheme))

    assert app.seen[0]["wsgi.url_scheme"] == "https"


def test_streams_wait_at_the_same_time_and_end_in_any_order(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        waiting = [client.ask("/wait") for _ in range(5)]
        other = client.ask()
        client.finish(other)
        assert app.running == 5
        app.release.set()
        client.finish(*waiting)


def test_bodies_and_answers_longer_than_windows_do_not_mix(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        echoes = {client.ask("/echo", "POST", ends=False): letter for letter in (b"a", b"b", b"c")}
        for part in range(12):
            for stream, letter in echoes.items():
                client.until(lambda: client.h2.local_flow_control_window(stream) >= 16_000, "there is room")  # noqa: B023
                client.upload(stream, letter * 16_000, ends=part == 11)
        large = client.ask("/large/1000000")
        client.finish(*echoes, large)

        assert [client.body(stream) == letter * 192_000 for stream, letter in echoes.items()] == [True] * 3
        assert client.body(large) == b"x" * 1_000_000


def test_stream_that_is_reset_ends_and_the_others_go_on(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream, other = client.ask("/stream"), client.ask("/wait")
        client.until(lambda: client.body(stream), "it has begun")
        client.h2.reset_stream(stream)
        client.flush()
        wait_until(lambda: len(running.kind.serving.in_flight) == 1, "it is over")
        app.release.set()
        client.finish(other)

    assert app.shields == [CLEAN_UP]
    assert running.records.at(logging.WARNING) == []


def test_requests_end_with_their_connection(app: App) -> None:
    with site(app) as running:
        with HTTP2Client(running) as client:
            streams = [client.ask("/stream"), client.ask("/echo", "POST", ends=False)]
            client.until(lambda: client.body(streams[0]), "it has begun")
        app.release.set()
        wait_until(lambda: not running.kind.serving.in_flight, "all are over")
        wait_until(lambda: not running.kind.serving.connections, "it is closed")

    assert running.records.at(logging.WARNING) == []


def test_stream_reset_in_the_turn_it_came_is_not_begun(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream = int(client.h2.get_next_available_stream_id())
        head = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
        client.h2.send_headers(stream, head)
        client.h2.reset_stream(stream)
        client.flush()
        client.finish(client.ask())

    assert [environ["REQUEST_METHOD"] for environ in app.seen] == ["GET"]


def test_stream_in_line_waits_and_one_too_many_is_503(app: App) -> None:
    with site(app, limit_requests=1, queue_limit_requests=1) as running, HTTP2Client(running) as client:
        serving = running.kind.serving
        busy = client.ask("/wait")
        wait_until(lambda: app.running, "it runs")
        waiting = [client.ask() for _ in range(3)]
        client.until(lambda: len(client.all_of(h2.events.ResponseReceived)) == 2, "two are turned away")
        health = client.ask("/healthz")
        client.finish(health)
        app.release.set()
        client.finish(busy, *waiting)

        statuses = sorted(client.head(stream)[":status"] for stream in waiting)
        assert statuses == ["200", "503", "503"]
        shed = next(stream for stream in waiting if client.head(stream)[":status"] == "503")
        assert client.head(shed)["retry-after"] == "1"
        assert client.body(shed).startswith(b"The server is overloaded")
        assert serving.admission.shed_requests == 2


def test_budget_that_ends_is_504_by_the_edge_and_the_connection_stays(app: App) -> None:
    with site(app, request_budget_milliseconds=50) as running, HTTP2Client(running) as client:
        streams = [client.ask("/wait"), client.ask("/wait", "HEAD"), client.ask("/wait", "POST", ends=False)]
        client.finish(*streams)
        app.release.set()
        client.finish(client.ask())

        assert [client.head(stream)[":status"] for stream in streams] == ["504"] * 3
        assert client.body(streams[1]) == b""
        (reset,) = client.all_of(h2.events.StreamReset)
        assert (reset.stream_id, reset.error_code) == (streams[2], h2.errors.ErrorCodes.NO_ERROR)


def test_body_that_only_drips_is_408(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream = client.ask("/echo", "POST", ends=False)
        with gevent.Timeout(10, AssertionError("it drips for ever")):
            while not client.all_of(h2.events.ResponseReceived, stream):
                client.upload(stream, b"x", ends=False)
                client.sock.settimeout(0.05)
                try:
                    data = client.sock.recv(65_536)
                except TimeoutError:
                    continue
                client.events += client.h2.receive_data(data)

        assert client.head(stream)[":status"] == "408"
        with gevent.Timeout(10, AssertionError("no line says so")):  # a greenlet writes it, maybe after the answer
            while not any(
                "the rest of the body did not come in time" in line for line in running.records.at(logging.INFO)
            ):
                gevent.sleep(0)


def test_answer_that_ends_early_resets_its_stream(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        for path in ("/short", "/fail_late"):
            stream = client.ask(path)
            client.until(lambda: client.all_of(h2.events.StreamReset, stream), "it is reset")  # noqa: B023
            assert not client.has_ended(stream)
        client.finish(client.ask())


def test_failure_is_500_with_a_traceback_in_the_log(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream = client.ask("/fail")
        client.finish(stream)

        assert client.head(stream)[":status"] == "500"
    assert len(running.records.at(logging.ERROR)) == 1


def test_hints_and_trailers(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        hinted, trailed = client.ask("/hints"), client.ask("/trailers")
        client.finish(hinted, trailed)

        (hints,) = client.all_of(h2.events.InformationalResponseReceived, hinted)
        assert dict(hints.headers)["link"] == "</a.css>; rel=preload"
        (trailers,) = client.all_of(h2.events.TrailersReceived, trailed)
        assert dict(trailers.headers) == {"x-sum": "1"}


def test_body_is_asked_for_where_the_client_waits_for_that(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream = client.ask("/echo", "POST", ends=False, headers=[("expect", "100-continue")])
        client.until(lambda: client.all_of(h2.events.InformationalResponseReceived, stream), "it is asked")
        client.upload(stream, b"body")
        client.finish(stream)

        assert client.body(stream) == b"body"


def test_socket_of_a_stream_is_refused_with_a_sentence_and_may_be_looked_at(app: App) -> None:
    with site(app) as running, HTTP2Client(running) as client:
        stream, look = client.ask("/take"), client.ask("/peer")
        client.finish(stream, look)

        assert client.head(stream)[":status"] == "500"
        assert client.body(look) == str(client.sock.getsockname()[1]).encode()
    assert "a stream of HTTP/2 has no socket of its own" in str(app.errors[0])


def test_request_of_http1_becomes_the_first_stream(app: App) -> None:
    with site(app) as running, running.connect() as plain:
        plain.send(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 4\r\n\r\nbody"
        )
        assert plain.until(HEAD_END).startswith(b"HTTP/1.1 101 ")
        client = HTTP2Client.over(plain)
        client.until(lambda: any(b"body" in event.data for event in client.all_of(h2.events.DataReceived)), "answered")
        client.finish(client.ask())


def test_http1_is_served_beside_it_and_refused_where_only_http2_is_spoken(app: App) -> None:
    strict = {**CLEARTEXT, "http2_cleartext": "prior-knowledge"}
    with serve(Ours, app, cfg=CLEARTEXT) as running:
        assert running.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert running.ask(b"PRI", b" * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"\0\0")
    with serve(Ours, app, cfg=strict) as running:
        assert running.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    with serve(Ours, app, cfg={**strict, "forwarded_allow_ips": "10.9.8.7"}) as running:
        assert running.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")
