"""TLS in the hub: what the transport does below everything else. Over real sockets, in this process."""

import gc
import logging
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.pool
import gevent.ssl
import pytest
from gevent import socket as green
from gunicorn.config import Config

from greenroom.worker.connection import Connection
from greenroom.worker.transport.handshake import MOST_HANDSHAKES, Handshake
from greenroom.worker.transport.tls import RECORD_BYTES, TLSSocket, context_of

from .harness import Client, Ours, Site, serve, turn, wait_until

FILES = Path(__file__).parents[2] / "app" / "api" / "tls"
CERTIFICATE, KEY = FILES / "certificate.pem", FILES / "key.pem"
TLS = {"certfile": str(CERTIFICATE), "keyfile": str(KEY)}
GET = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    name, _, size = environ["PATH_INFO"].strip("/").partition("/")
    body = b"x" * int(size) if name == "large" else environ["wsgi.input"].read() or environ["wsgi.url_scheme"].encode()
    if name == "peer":
        body = str(environ["gunicorn.socket"].getpeercert()).encode()
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def client_context(**options: Any) -> ssl.SSLContext:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(str(CERTIFICATE))
    for name, value in options.items():
        setattr(context, name, value)
    return context


def connect(site: Site, context: ssl.SSLContext | None = None, name: str = "localhost") -> Client:
    plain = site.connect().sock
    wrapped = (context or client_context()).wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
    return Client(wrapped)


def tls(**more: Any) -> Any:
    settings = more.pop("settings", {})
    return serve(Ours, more.pop("app", app), cfg={**TLS, **more}, settings=settings)


def plain(**more: Any) -> Any:
    return serve(Ours, more["app"], settings=more["settings"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_are_answered_on_one_connection(version: ssl.TLSVersion) -> None:
    with tls() as site, connect(site, client_context(maximum_version=version)) as client:
        client.send(GET % b"")
        assert client.answer().body == b"https"
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"y" * 300_000)
        assert client.answer().body == b"y" * 300_000
        client.send(GET % b"1" + GET % b"2" + GET % b"3")
        assert [client.answer().status for _ in range(3)] == [200] * 3


def test_head_that_comes_in_many_records_is_one() -> None:
    with tls() as site, connect(site) as client:
        for byte in GET % b"":
            client.send(bytes([byte]))
            turn()
        assert client.answer().status == 200


def test_answer_that_the_client_takes_slowly_comes_whole() -> None:
    """Its records are offered again when the kernel took none, or a part."""
    with tls() as site, connect(site) as client:
        (connection,) = settled(site)
        connection.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        client.send(GET % b"large/3000000")
        gevent.sleep(0.05)
        assert client.answer().body == b"x" * 3_000_000
        client.send(GET % b"")
        assert client.answer().status == 200


def settled(site: Site) -> list[Connection]:
    """The connections, when their handshakes are over."""
    wait_until(
        lambda: (
            site.kind.serving.connections
            and not any(isinstance(one, Handshake) for one in site.kind.serving.connections)
        ),
        "the handshake is over",
    )
    return list(site.kind.serving.connections)


def test_nothing_comes_behind_a_record_that_left_in_part() -> None:
    with tls(settings={"send_timeout_seconds": 1}) as site, connect(site) as client:
        (connection,) = settled(site)
        connection.wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        assert not connection.wire.try_send(b"x" * 5_000_000)
        assert connection.wire.is_broken
        assert not connection.wire.try_send(b"next")


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [GET % (b"x" * 100), CHUNKED], ids=["GET", "POST"])
def test_what_a_client_pipelines_waits_in_the_kernel(request_bytes: bytes) -> None:
    """Each request took another record of it, until the worker had no memory left."""
    most = 0

    def slow(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal most
        gevent.sleep(0)
        (connection,) = site.kind.serving.connections
        unread = connection.incoming.unreader.buf.getbuffer().nbytes if connection.incoming else 0
        most = max(most, len(connection.buffer) + unread)
        environ["wsgi.input"].read()
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    count = 2000
    with tls(app=slow) as site, connect(site) as client:
        sending = gevent.spawn(client.send, request_bytes * count)
        assert [client.answer().status for _ in range(count)] == [200] * count
        sending.get(timeout=30)

    assert 0 < most <= 3 * RECORD_BYTES


def test_goodbye_is_said_and_understood() -> None:
    with tls() as site, connect(site) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        client.answer()
        assert client.sock.recv(1) == b""  # and no error: ragged ends are not suppressed here
    with tls() as site:
        client = connect(site)
        settled(site)
        client.sock.unwrap()
        client.sock.close()
        wait_until(lambda: not site.kind.serving.connections, "it is seen")


@pytest.mark.parametrize("is_polite", [True, False])
def test_client_that_leaves_is_noticed_while_its_request_runs(is_polite: bool) -> None:
    gone = []

    def waits(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        wait_until(environ["greenroom.is_client_gone"], "its leaving is noticed")
        gone.append(True)
        start("200 OK", [("Content-Length", "0")])
        return []

    with tls(app=waits) as site:
        client = connect(site)
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: site.kind.serving.in_flight, "it runs")
        if is_polite:
            client.sock.settimeout(0.1)
            with pytest.raises((TimeoutError, ssl.SSLError)):
                client.sock.unwrap()
        client.sock.close()
        wait_until(lambda: gone, "it is over")


def test_client_that_ends_its_side_without_a_goodbye_gets_its_answers() -> None:
    with tls() as site, connect(site) as client:
        client.send(GET % b"" + GET % b"large/7")
        socket.socket.shutdown(client.sock._sock, socket.SHUT_WR)
        answers = [client.answer(), client.answer()]

    assert [answer.status for answer in answers] == [200, 200]


def test_request_that_came_while_another_ran_is_answered() -> None:
    """Its record was looked at: the kernel has nothing of it any more, and tells nothing."""
    release = gevent.event.Event()

    def waits(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        release.wait()
        start("200 OK", [("Content-Length", "0")])
        return []

    with tls(app=waits, settings={"keepalive_seconds": 3600}) as site, connect(site) as client:
        client.send(GET % b"1")
        wait_until(lambda: site.kind.serving.in_flight, "it runs")
        client.send(GET % b"2")
        wait_until(lambda: site.kind.serving.timeouts.deaf, "the other one was looked at")
        release.set()

        assert [client.answer().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("serve_it", [tls, plain], ids=["TLS", "plain"])
@pytest.mark.parametrize("comes", ["later", "while it waits", "with its head"])
def test_body_of_a_request_that_is_turned_away_is_no_request(serve_it: Any, comes: str) -> None:
    """The connection is kept, and the body thrown away, whenever it comes."""
    release = gevent.event.Event()
    seen = []

    def waits(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        seen.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/wait":
            release.wait()
        start("200 OK", [("Content-Length", "0")])
        return []

    body = GET % b"smuggled" * 20
    head = b"POST /shed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    settings = {"limit_requests": 1, "queue_limit_requests": int(comes == "while it waits"), "keepalive_seconds": 3600}
    open_it = connect if serve_it is tls else Site.connect
    with serve_it(app=waits, settings=settings) as site, open_it(site) as busy, open_it(site) as client:
        busy.send(GET % b"wait")
        wait_until(lambda: seen == ["/wait"], "one runs")
        client.send(head + body if comes == "with its head" else head)
        if comes == "while it waits":
            wait_until(lambda: site.kind.serving.admission.waiting, "it waits")
            client.send(body)
            wait_until(lambda: site.kind.serving.timeouts.deaf, "the body was looked at")
            site.kind.serving.admission.turn_away_all()
        answer = client.answer()
        if comes == "later":
            client.send(body[:100])
            turn(3)
            client.send(body[100:])
        client.send(GET % b"healthz")
        after = client.answer()
        release.set()
        busy.answer()

    assert (answer.status, answer.header("Connection"), after.status) == (503, "keep-alive", 200)
    assert seen == ["/wait", "/healthz"]


def test_handshake_that_does_not_end_is_bounded() -> None:
    with tls(settings={"tls_handshake_timeout_seconds": 1}) as site, site.connect() as silent:
        assert silent.rest() == b""
        assert not site.kind.serving.connections


def test_handshakes_that_come_at_once_are_done_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: Counter[int] = Counter()
    plain = TLSSocket.handshake

    with tls() as site:

        def handshake(self: TLSSocket) -> None:
            steps[site.kind.serving.turns.count] += 1
            plain(self)

        monkeypatch.setattr(TLSSocket, "handshake", handshake)
        clients = gevent.pool.Pool(40).map(lambda _: connect(site), range(40))
        for client in clients:
            client.send(GET % b"")
        assert [client.answer().status for client in clients] == [200] * 40
        for client in clients:
            client.sock.close()

    assert max(steps.values()) <= MOST_HANDSHAKES


def test_what_is_no_tls_is_closed_and_plain_http_is_told_why() -> None:
    with tls() as site:
        with site.connect() as client:
            client.send(b"\x16\x03\x01\x00\x05hello")
            client.rest()
        with site.connect() as client:
            client.send(GET % b"")
            told = client.answer()
        wait_until(lambda: not site.kind.serving.connections, "both are closed")

    assert told.status == 400
    assert b"https://" in told.body
    assert site.records.at(logging.ERROR) == []


def test_handshakes_make_room_for_others() -> None:
    with tls(settings={"worker_connections": 3}) as site:
        silent = [site.connect() for _ in range(3)]
        wait_until(lambda: len(site.kind.serving.connections) == 3, "all are there")
        with connect(site) as client:
            client.send(GET % b"")
            assert client.answer().status == 200
        for one in silent:
            one.sock.close()


def test_hook_for_the_context_and_sni_are_gunicorns() -> None:
    seen = []

    def hook(cfg: Any, default: Callable[[], Any]) -> Any:
        context = default()
        other = default()

        def choose(sock: Any, name: str | None, chosen_for: Any) -> None:
            seen.append((name, sock.context is chosen_for))
            sock.context = other

        context.sni_callback = choose
        return context

    with tls(ssl_context=hook) as site, connect(site, name="a.example") as client:
        client.send(GET % b"")
        assert client.answer().status == 200

    assert seen == [("a.example", True)]


def test_context_that_is_none_of_pythons_is_refused_with_a_sentence() -> None:
    cfg = Config()
    cfg.set("certfile", str(CERTIFICATE))
    cfg.set("ssl_context", lambda cfg, default: None)

    with pytest.raises(ValueError, match="has to return an ssl.SSLContext, and returned None"):
        context_of(cfg)


def test_certificate_of_the_client_is_asked_for_and_may_be_looked_at() -> None:
    cfg = {"ca_certs": str(CERTIFICATE), "cert_reqs": ssl.CERT_REQUIRED}
    mine = client_context()
    mine.load_cert_chain(str(CERTIFICATE), str(KEY))
    with tls(**cfg) as site:
        with connect(site, mine) as client:
            client.send(GET % b"peer")
            answer = client.answer()
        stranger = connect(site)  # over TLS 1.3 the client learns of it when it reads
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            stranger.sock.recv(1)
        stranger.sock.close()

    assert b"'subject'" in answer.body


def test_socket_that_an_application_takes_begins_with_what_has_come() -> None:
    """Bytes behind the head were looked at, to see whether the client is there, and may not be lost."""

    def takes(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        gevent.sleep(0.05)
        sock = environ["gunicorn.socket"]
        sock.sendall(b"hello ")
        data = sock.recv(3) + sock.recv(100)
        sock.sendall(data.upper() + str(sock.version() is not None).encode())
        raise StopIteration

    with tls(app=takes) as site, connect(site) as client:
        client.send(GET % b"")
        turn(5)
        client.send(b"client")
        wait_until(lambda: len(client.until(b"True")) == len("hello CLIENTTrue"), "all is there")


def test_open_and_idle_it_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Python's and of OpenSSL's memory, clients included, which live in this process as well and cost more."""
    count = 200
    with tls(settings={"worker_connections": 1000}) as site:
        context = client_context()
        warm = connect(site, context)
        settled(site)
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        clients = [connect(site, context) for _ in range(count)]
        settled(site)
        assert len(site.kind.serving.connections) == count + 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        for client in [*clients, warm]:
            client.sock.close()

    assert grown / count < 100  # KB


def test_transport_has_what_python_and_gevent_keep_private() -> None:
    assert callable(ssl.SSLContext._wrap_socket)  # type: ignore[attr-defined]
    assert "_sslsock" in gevent.ssl._Callback.__call__.__code__.co_names  # type: ignore[attr-defined]
    assert hasattr(TLSSocket, "_sslsock")
    assert isinstance(green.socket, type)
