"""Where calls of upstreams may go: redirects, private and public addresses, names, and certificates over TLS."""

import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from app import lanes
from app.upstream import Outcome, Target
from tests.app.api.upstreams import LONG_WAIT, Behaviour, Connection, Flood, Upstream, answering, redirecting, upstream

from .fetching import SHORT_MS, Names, fetch_from, fetch_one, fetcher


class TestRedirects:
    def test_redirects_are_followed_relative_to_the_name(self, names: Names) -> None:
        names["name.test"] = lambda: ["127.0.0.1"]

        def behave(connection: Connection) -> None:
            while head := connection.read_head():
                if head.startswith("GET /old/ "):
                    connection.answer(b"", status="301 Moved Permanently", Location="new")
                else:
                    connection.answer(b'"arrived"')

        with upstream(behave) as server:
            outcome = fetch_one(server.url("/old/", host="name.test"))

        assert outcome.body == "arrived"
        assert server.heads[1].startswith("GET /old/new ")
        assert f"Host: name.test:{server.port}" in server.heads[1]

    def test_endless_redirects_stop_at_the_limit(self) -> None:
        with upstream(redirecting("/again")) as server:
            outcome = fetch_one(server.url(), redirects=3)

        assert outcome.error == "more than 3 redirects"
        assert len(server.heads) == 4

    def test_body_of_a_redirect_is_not_read(self) -> None:
        flood = Flood(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n")
        with upstream(flood) as server:
            outcome = fetch_one(server.url())

        assert outcome.error == "connection refused"
        assert flood.sent < 50

    @pytest.mark.parametrize("location", ["ftp://example.org/", "file:///etc/passwd", "gopher://127.0.0.1/"])
    def test_redirect_to_another_scheme_is_refused(self, location: str) -> None:
        assert fetch_from(redirecting(location)).error == "only http:// and https:// addresses can be fetched"

    @pytest.mark.parametrize(
        "location", ["http://[", "http://a\x00b/", "http://\xff\xfe/", "http://x:99999/", "http:///"]
    )
    def test_redirect_to_nonsense_is_an_error(self, location: str) -> None:
        outcome = fetch_from(redirecting(location))

        assert outcome.error is not None
        assert "internal error" not in outcome.error


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public in this test, and nothing else on this machine does."""
    really = lanes.is_public
    monkeypatch.setattr(lanes, "is_public", lambda address: address == "127.0.0.1" or really(address))


class TestPublicAddresses:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1/",
            "http://localhost/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0.0.0.0/",
            "http://0/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[fe80::1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
        ],
    )
    def test_private_address_is_refused_in_any_writing(self, url: str) -> None:
        outcome = fetch_one(url, allow_private=False)

        assert outcome.error is not None
        assert "is not a public address" in outcome.error

    @pytest.mark.usefixtures("public_loopback")
    @pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
    def test_of_a_name_with_public_and_private_addresses_no_private_one_is_connected_to(
        self, names: Names, addresses: list[str]
    ) -> None:
        names["mixed.test"] = lambda: addresses
        with upstream(answering(b"secret"), host="127.0.0.2") as inside:  # and nothing at this port of 127.0.0.1
            outcome = fetch_one(inside.url(host="mixed.test"), allow_private=False)

        assert outcome.error in ("mixed.test is not a public address", "connection refused")  # whichever came last
        assert inside.connections == 0

    @pytest.mark.usefixtures("public_loopback")
    def test_redirect_from_public_to_private_is_refused(self) -> None:
        with upstream(answering(b"secret"), host="127.0.0.2") as inside, upstream(redirecting(inside.url())) as outside:
            outcome = fetch_one(outside.url(), allow_private=False)

        assert outcome.error == "127.0.0.2 is not a public address"
        assert inside.connections == 0

    @pytest.mark.usefixtures("public_loopback")
    def test_name_that_changes_after_it_was_connected_to_gains_nothing(self, names: Names) -> None:
        answers = [["127.0.0.1"], ["127.0.0.2"]]
        names["rebind.test"] = lambda: answers.pop(0)
        with upstream(answering(b'"outside"')) as outside:
            with upstream(answering(b'"inside"'), host="127.0.0.2", port=outside.port) as inside:
                one = fetcher(allow_private=False)
                first, second = (
                    next(one.fetch_all([Target("it", outside.url(host="rebind.test"), 5000)])) for _ in range(2)
                )

        assert (first.body, second.body) == ("outside", "outside")
        assert inside.connections == 0
        assert len(answers) == 1, "the name was looked up for the check and for the connection"
        assert f"Host: rebind.test:{outside.port}" in outside.heads[0]

    @pytest.mark.usefixtures("public_loopback")
    def test_name_that_is_private_when_it_is_connected_to_anew_is_refused(self, names: Names) -> None:
        answers = [["127.0.0.1"], ["127.0.0.2"]]
        names["rebind.test"] = lambda: answers.pop(0)
        with upstream(answering(Connection="close")) as outside:
            with upstream(answering(b'"inside"'), host="127.0.0.2", port=outside.port) as inside:
                one = fetcher(allow_private=False)
                first, second = (
                    next(one.fetch_all([Target("it", outside.url(host="rebind.test"), 5000)])) for _ in range(2)
                )

        assert first.status == 200
        assert second.error == "rebind.test is not a public address"
        assert inside.connections == 0

    def test_the_machines_proxies_are_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with upstream(answering()) as proxy, upstream(answering(b'"direct"')) as server:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url())
            monkeypatch.delenv("no_proxy", raising=False)
            outcome = fetch_one(server.url())

        assert outcome.body == "direct"
        assert proxy.connections == 0

    def test_only_calls_of_lanes_are_checked(self) -> None:
        lanes.watch_connects()
        with upstream(answering()) as server:
            assert fetch_one(server.url(), allow_private=False).error == "127.0.0.1 is not a public address"
            assert requests.get(server.url(), timeout=LONG_WAIT).ok

    @pytest.mark.parametrize("address", ["/run/docker.sock", b"\0abstract", ("localhost", 80), ("", 80), (b"x", 1)])
    def test_paths_and_names_are_no_addresses_that_could_be_checked(self, address: Any) -> None:
        assert not lanes.is_public_peer(address)

    def test_an_answer_over_a_connection_that_was_not_seen_is_thrown_away(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(lanes.Lane, "connecting", lambda *_: None)

        assert fetch_from(answering()).error == "internal error (RuntimeError)"
        assert "nobody has checked" in caplog.text

    def test_password_in_a_redirect_never_reaches_the_host_header(self) -> None:
        with upstream(answering()) as server:
            with upstream(redirecting(f"http://user:secret@127.0.0.1:{server.port}/")) as first:
                fetch_one(first.url())

        assert f"Host: 127.0.0.1:{server.port}" in server.heads[0]


class TestTLS:
    """With a certificate for `tls.test`, signed by itself: see tests/app/api/tls/README."""

    FILES = Path(__file__).parents[1] / "api" / "tls"

    @pytest.fixture(autouse=True)
    def _named(self, names: Names) -> None:
        names |= dict.fromkeys(("tls.test", "other.test"), lambda: ["127.0.0.1"])

    def fetch(
        self, behaviour: Behaviour, name: str = "tls.test", timeout_ms: int = 5000, **kwargs: Any
    ) -> tuple[Outcome, Upstream]:
        settings = {"authorities": str(self.FILES / "certificate.pem")} | kwargs
        with upstream(behaviour) as server:
            return fetch_one(f"https://{name}:{server.port}/", timeout_ms, **settings), server

    def serve(self, connection: Connection) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.FILES / "certificate.pem", self.FILES / "key.pem")
        with context.wrap_socket(connection.sock, server_side=True) as connection.sock:
            while connection.read_head() is not None:
                connection.answer()

    def test_certificate_is_checked_against_the_name_and_not_the_address(self) -> None:
        outcome, server = self.fetch(self.serve)

        assert outcome.body == {"ok": True}
        assert f"Host: tls.test:{server.port}" in server.heads[0]

    def test_certificate_of_another_name_is_refused(self) -> None:
        outcome, server = self.fetch(self.serve, "other.test")

        assert outcome.error == "the TLS certificate or handshake was not accepted"
        assert server.heads == []

    def test_unknown_authority_is_refused(self) -> None:
        outcome, server = self.fetch(self.serve, authorities=True)

        assert outcome.error == "the TLS certificate or handshake was not accepted"
        assert server.heads == []

    def test_no_tls_behind_https_is_an_error(self) -> None:
        def plain(connection: Connection) -> None:
            connection.sock.recv(65_536)
            connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        outcome, _ = self.fetch(plain)

        assert outcome.error == "the TLS certificate or handshake was not accepted"

    def test_handshake_that_dribbles_is_cut_at_the_timeout(self) -> None:
        gone = threading.Event()

        def dribble(connection: Connection) -> None:
            connection.sock.recv(65_536)
            connection.send(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB that never gets complete
            try:
                while not connection.server.stopping.wait(0.01):
                    connection.send(b"\x02")
            except OSError:
                gone.set()

        with upstream(dribble) as server:
            settings = {"authorities": str(self.FILES / "certificate.pem")}
            outcome = fetch_one(f"https://tls.test:{server.port}/", SHORT_MS, **settings)
            assert gone.wait(LONG_WAIT), "the handshake went on"

        assert outcome.error == "no answer within 200 ms"
