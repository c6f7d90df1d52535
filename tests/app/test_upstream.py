import gzip
import json
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from app import lanes
from app.bodies import decode_body
from app.lanes import Lane
from app.upstream import HEARTBEAT, Call, Fetcher, Outcome, Target
from tests.app.api.upstreams import (
    LONG_WAIT,
    Behaviour,
    Connection,
    Upstream,
    answering,
    dribbling,
    hanging,
    redirecting,
    sending,
    upstream,
)

LIMIT = 100_000
SHORT_MS = 200
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def fetcher(**kwargs: Any) -> Fetcher:
    settings = {"allow_private": True, "response_bytes": LIMIT, "redirects": 3, "budget_ms": 10_000}
    return Fetcher(**(settings | kwargs))


def fetch_one(url: str, timeout_ms: int = 5000, **kwargs: Any) -> Outcome:
    (outcome,) = fetcher(**kwargs).fetch_all([Target("it", url, timeout_ms)])
    return outcome


def fetch_from(behaviour: Behaviour, timeout_ms: int = 5000, **kwargs: Any) -> Outcome:
    with upstream(behaviour) as server:
        return fetch_one(server.url(), timeout_ms, **kwargs)


Names = dict[str, Callable[[], list[str]]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names that exist for this test, with what gives their addresses each time they are looked up."""
    known: Names = {}
    really = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in known:
            return really(host, port, *args, **kwargs)
        return [found for address in known[host]() for found in really(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LONG_WAIT
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not fetch_threads()), f"fetches still run: {fetch_threads()}"


class TestAnswers:
    def test_json_comes_as_the_value_it_is(self) -> None:
        outcome = fetch_from(answering(b'{"celsius": 21}'))

        assert outcome.as_dict() == {
            "name": "it",
            "status": 200,
            "elapsed_ms": outcome.elapsed_ms,
            "body": {"celsius": 21},
        }

    def test_an_error_status_is_an_answer(self) -> None:
        outcome = fetch_from(answering(b"gone fishing", status="503 Service Unavailable"))

        assert (outcome.status, outcome.body, outcome.error) == (503, "gone fishing", None)

    def test_chunked_and_compressed_bodies_are_read(self) -> None:
        packed = gzip.compress(b'{"zipped": true}')
        head = OK + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"".join(b"1\r\n" + packed[i : i + 1] + b"\r\n" for i in range(len(packed)))

        assert fetch_from(sending(head + chunks + b"0\r\n\r\n")).body == {"zipped": True}

    def test_body_without_a_length_ends_with_the_connection(self) -> None:
        assert fetch_from(sending(OK + b"\r\nuntil the end")).body == "until the end"

    def test_request_says_host_and_who_we_are_and_carries_nothing_else(self) -> None:
        with upstream(answering()) as server:
            fetch_one(server.url("/path?query=1#fragment"))

        assert server.heads[0].splitlines()[0] == "GET /path?query=1 HTTP/1.1"
        names = {line.partition(":")[0] for line in server.heads[0].splitlines()[1:]}
        assert names == {"Host", "User-Agent", "Accept", "Accept-Encoding", "CDN-Loop", "Connection"}
        assert f"Host: 127.0.0.1:{server.port}" in server.heads[0]

    def test_each_target_has_exactly_one_outcome(self) -> None:
        with upstream(answering()) as good, upstream(sending(b"")) as bad:
            targets = [Target(f"good {n}", good.url(), 5000) for n in range(5)]
            targets += [Target(f"bad {n}", bad.url(), 5000) for n in range(5)]
            outcomes = list(fetcher().fetch_all(targets))

        assert sorted(outcome.name for outcome in outcomes) == sorted(target.name for target in targets)

    def test_no_targets_no_outcomes(self) -> None:
        assert list(fetcher().fetch_all([])) == []


class TestMisbehaviour:
    def test_hanging_source_is_an_error_after_its_timeout(self) -> None:
        outcome = fetch_from(hanging, SHORT_MS)

        assert outcome.error == "no answer within 200 ms"
        assert outcome.status is None

    def test_hanging_source_is_given_up_when_the_budget_is_spent(self) -> None:
        assert fetch_from(hanging, 60_000, budget_ms=200).error == "no answer within the board's budget of 200 ms"

    def test_source_that_had_no_time_because_the_request_was_over_is_not_called_slow(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server may end a request's waits before ours, when its own time is up."""

        def ends_early(*args: Any, **kwargs: Any) -> None:
            raise requests.Timeout

        monkeypatch.setattr(requests.Session, "get", ends_early)
        outcome = fetch_one("http://127.0.0.1:1/")

        assert outcome.error == "given up: the time for the whole request was over"
        assert outcome.is_given_up

    def test_reset_in_the_head(self) -> None:
        def reset(connection: Connection) -> None:
            connection.read_head()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-")
            connection.reset()

        assert fetch_from(reset).error == "the connection was cut before the answer was complete"

    def test_reset_before_the_head_is_not_asked_again(self) -> None:
        def reset(connection: Connection) -> None:
            connection.read_head()
            connection.reset()

        with upstream(reset) as server:
            outcome = fetch_one(server.url())

        assert outcome.error == "the connection was cut before the answer was complete"
        assert len(server.heads) == 1

    def test_reset_in_the_body(self) -> None:
        def reset(connection: Connection) -> None:
            connection.read_head()
            connection.send(OK + b"Content-Length: 1000\r\n\r\nhalf")
            connection.reset()

        assert fetch_from(reset).error == "the connection was cut before the answer was complete"

    @pytest.mark.parametrize(
        "framing", [b"Content-Length: 1000\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\nff\r\nhal"]
    )
    def test_body_shorter_than_announced(self, framing: bytes) -> None:
        assert fetch_from(sending(OK + framing)).error == "the connection was cut before the answer was complete"

    def test_bytes_after_the_announced_length_reach_nobody(self) -> None:
        def lie(connection: Connection) -> None:
            while connection.read_head() is not None:
                connection.send(
                    OK + b"Content-Length: 5\r\n\r\nfirst" + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
                )

        with upstream(lie) as server:
            one = fetcher()
            bodies = [next(one.fetch_all([Target("it", server.url(), 5000)])).body for _ in range(3)]

        assert bodies == ["first"] * 3

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param(b"", id="status-line"),
            pytest.param(b"HTTP/1.1 200 OK\r\nX-Slow: ", id="headers"),
            pytest.param(OK + b"Content-Length: 100000\r\n\r\n", id="body"),
            pytest.param(OK + b"Connection: close\r\n\r\n", id="body-without-length"),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", id="chunk-size"),
        ],
    )
    def test_dribbling_can_not_stretch_the_timeout(self, head: bytes) -> None:
        cut = threading.Event()

        def dribble(connection: Connection) -> None:
            try:
                dribbling(head, b"1")(connection)
            except OSError:
                cut.set()

        with upstream(dribble) as server:
            outcome = fetch_one(server.url(), SHORT_MS)
            assert cut.wait(LONG_WAIT), "the connection stayed open"

        assert outcome.error == "no answer within 200 ms"
        assert outcome.elapsed_ms < 3000

    def test_endless_100_continue_ends_at_the_timeout(self) -> None:
        assert fetch_from(dribbling(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), SHORT_MS).error == "no answer within 200 ms"

    def test_100_mb_are_not_read(self) -> None:
        sent = 0

        def flood(connection: Connection) -> None:
            nonlocal sent
            connection.read_head()
            connection.send(OK + b"Content-Length: 100000000\r\n\r\n")
            for _ in range(100):
                connection.send(b"x" * 1_000_000)
                sent += 1

        with upstream(flood) as server:
            outcome = fetch_one(server.url())

        assert outcome.error == "the answer is larger than 100,000 bytes"
        assert sent < 50

    def test_gzip_bomb_is_stopped_at_its_unpacked_size(self) -> None:
        bomb = gzip.compress(gzip.compress(b"\0" * 20_000_000, 9), 9)

        with upstream(answering(bomb, Content_Encoding="gzip, gzip")) as server:
            tracemalloc.start()
            outcome = fetch_one(server.url())
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

        assert outcome.error == "the answer is larger than 100,000 bytes"
        assert peak < 5_000_000

    def test_body_that_is_not_gzip_though_it_says_so(self) -> None:
        outcome = fetch_from(answering(b"plain", Content_Encoding="gzip"))

        assert outcome.error == "the answer is not compressed the way it says"

    def test_exactly_the_limit_is_let_through(self) -> None:
        assert fetch_from(answering(b"x" * LIMIT)).body == "x" * LIMIT

    @pytest.mark.parametrize(
        "garbage", [b"\x00\xff\xfe\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 9999 Nine\r\n\r\n", b"<html>\r\n"]
    )
    def test_garbage_instead_of_http(self, garbage: bytes) -> None:
        assert fetch_from(sending(garbage)).error == "the answer is not HTTP"

    def test_headers_without_end(self) -> None:
        endless = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000))

        assert fetch_from(sending(endless)).error == "the answer is not HTTP"

    def test_two_different_content_lengths(self) -> None:
        assert fetch_from(sending(OK + b"Content-Length: 5, 6\r\n\r\nfirst")).error == "the answer is not HTTP"

    def test_unknown_host(self, names: Names) -> None:
        def unknown() -> list[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        names["nowhere.invalid"] = unknown

        assert fetch_one("http://nowhere.invalid/").error == "the name nowhere.invalid was not found"

    def test_slow_name_is_given_up_at_the_timeout(self, names: Names) -> None:
        release = threading.Event()

        def slow() -> list[str]:
            release.wait(LONG_WAIT)
            return ["127.0.0.1"]

        names["slow.invalid"] = slow
        outcome = fetch_one("http://slow.invalid:1/", SHORT_MS)
        release.set()

        assert outcome.error == "no answer within 200 ms"

    def test_closed_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]

        assert fetch_one(f"http://127.0.0.1:{port}/refused").error == "connection refused"

    def test_second_address_is_tried_when_the_first_refuses(self, names: Names) -> None:
        names["two.test"] = lambda: ["127.0.0.9", "127.0.0.1"]
        with upstream(answering()) as server:
            outcome = fetch_one(server.url(host="two.test"))

        assert outcome.status == 200

    def test_error_text_is_fit_to_store_whatever_a_source_puts_into_it(self) -> None:
        outcome = fetch_from(answering(b"x", Content_Type=f"text/plain; charset=a\x00b\x1b[31m{'c' * 400}"))

        assert outcome.error is not None
        assert outcome.error.isprintable()
        assert len(outcome.error) <= 300

    def test_a_bad_source_spoils_nothing_else(self) -> None:
        with upstream(hanging) as dead, upstream(sending(b"\x00")) as broken, upstream(answering()) as good:
            targets = [
                Target("dead", dead.url(), SHORT_MS),
                Target("broken", broken.url(), 5000),
                Target("nonsense", "http://[::1", 5000),
                Target("good", good.url(), 5000),
            ]
            outcomes = {outcome.name: outcome for outcome in fetcher().fetch_all(targets)}

        assert outcomes["good"].body == {"ok": True}
        assert {name for name, outcome in outcomes.items() if outcome.error} == {"dead", "broken", "nonsense"}

    def test_bug_in_our_own_code_is_an_error_of_that_source_and_logged(
        self, names: Names, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken() -> list[str]:
            raise ZeroDivisionError

        names["any.invalid"] = broken

        assert fetch_one("http://any.invalid/").error == "internal error (ZeroDivisionError)"
        assert "source fetch failed" in caplog.text


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
        sent = 0

        def flood(connection: Connection) -> None:
            nonlocal sent
            connection.read_head()
            connection.send(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 100000000\r\n\r\n")
            for _ in range(100):
                connection.send(b"x" * 1_000_000)
                sent += 1

        with upstream(flood) as server:
            outcome = fetch_one(server.url())

        assert outcome.error == "connection refused"
        assert sent < 50

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


class TestConnections:
    def test_connection_is_kept_and_used_again(self) -> None:
        with upstream(answering()) as server:
            one = fetcher()
            for _ in range(5):
                list(one.fetch_all([Target("it", server.url(), 5000)]))

        assert server.connections == 1
        assert len(server.heads) == 5

    def test_cookies_set_by_one_answer_are_not_sent_by_the_next_call(self) -> None:
        with upstream(answering(Set_Cookie="session=ann; Path=/")) as server:
            one = fetcher()
            for _ in range(3):
                list(one.fetch_all([Target("it", server.url(), 5000)]))

        assert len(server.heads) == 3
        assert not any("cookie" in head.lower() for head in server.heads)

    def test_cookies_are_not_carried_along_a_redirect(self) -> None:
        with upstream(answering(b"", status="302 Found", Location="/next", Set_Cookie="a=b; Path=/")) as server:
            fetch_one(server.url())

        assert len(server.heads) > 1
        assert not any("cookie:" in head.lower() for head in server.heads)

    def test_stale_kept_connection_is_replaced_once(self) -> None:
        def answer_once(connection: Connection) -> None:
            if connection.read_head() is not None:
                connection.answer()
            connection.read_head()  # and closes without an answer to the second

        with upstream(answer_once) as server:
            one = fetcher()
            outcomes = [next(one.fetch_all([Target("it", server.url(), 5000)])) for _ in range(2)]

        assert [outcome.status for outcome in outcomes] == [200, 200]
        assert server.connections == 2
        assert len(server.heads) == 3

    def test_source_that_never_answers_twice_is_asked_once_more_and_not_for_ever(self) -> None:
        answered = threading.Event()

        def answer_only_the_first(connection: Connection) -> None:
            if connection.read_head() is not None and not answered.is_set():
                answered.set()
                connection.answer()
                connection.read_head()

        with upstream(answer_only_the_first) as server:
            one = fetcher()
            outcomes = [next(one.fetch_all([Target("it", server.url(), 5000)])) for _ in range(2)]

        assert outcomes[1].error == "the connection was cut before the answer was complete"
        assert len(server.heads) == 3

    def test_all_sources_are_fetched_at_the_same_time(self) -> None:
        everybody = threading.Barrier(20)

        def answer_together(connection: Connection) -> None:
            connection.read_head()
            everybody.wait(LONG_WAIT)  # broken unless twenty requests are here at once
            connection.answer()

        with upstream(answer_together) as server:
            outcomes = list(fetcher().fetch_all([Target(str(n), server.url(), 9000) for n in range(20)]))

        assert [outcome.status for outcome in outcomes] == [200] * 20

    def test_outcome_is_there_before_the_slow_ones_are(self) -> None:
        with upstream(hanging) as slow, upstream(answering()) as fast:
            outcomes = fetcher().fetch_all([Target("slow", slow.url(), 60_000), Target("fast", fast.url(), 5000)])
            first = next(outcomes)
            outcomes.close()

        assert first.name == "fast"

    def test_heartbeats_come_while_nothing_does(self) -> None:
        with upstream(hanging) as server:
            items = fetcher().fetch_with_heartbeat([Target("it", server.url(), 60_000)], 0.01)
            first, second = next(items), next(items)
            items.close()

        assert (first, second) == (HEARTBEAT, HEARTBEAT)


class TestCutting:
    @pytest.mark.parametrize("head", [b"", OK + b"Content-Length: 9\r\n\r\n", OK + b"Connection: close\r\n\r\n"])
    def test_closing_the_iterator_cuts_what_still_runs(self, head: bytes) -> None:
        begun, gone = threading.Event(), threading.Event()

        def watch(connection: Connection) -> None:
            connection.read_head()
            connection.send(head)
            begun.set()
            if connection.wait_until_gone():
                gone.set()

        with upstream(watch) as server:
            items = fetcher().fetch_with_heartbeat([Target("it", server.url(), 60_000)], 0.01)
            while not begun.is_set():
                next(items)
            items.close()

            assert gone.wait(LONG_WAIT)
            assert eventually(lambda: not fetch_threads())

    def test_cut_call_does_not_touch_a_connection_that_another_call_has_taken_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first call is done and its connection back in the pool; the second has it when the first is cut."""
        second_asked, let_go = threading.Event(), threading.Event()

        def behave(connection: Connection) -> None:
            connection.read_head()
            connection.answer()
            connection.read_head()
            second_asked.set()
            let_go.wait(LONG_WAIT)
            connection.answer(b'"untouched"')

        with upstream(behave) as server:
            one = fetcher()
            calls: list[Call] = []
            really = Call.take

            def take(call: Call, lane: Lane | None) -> None:
                calls.append(call)
                really(call, lane)

            monkeypatch.setattr(Call, "take", take)
            first = next(one.fetch_all([Target("first", server.url(), 9000)]))
            second: list[Outcome] = []
            thread = threading.Thread(
                target=lambda: second.extend(one.fetch_all([Target("second", server.url(), 9000)]))
            )
            thread.start()
            assert second_asked.wait(LONG_WAIT)
            calls[0].cut()
            let_go.set()
            thread.join(LONG_WAIT)

        assert first.status == 200
        assert [outcome.body for outcome in second] == ["untouched"]
        assert server.connections == 1

    def test_call_cut_while_it_resolves_never_connects(self, names: Names) -> None:
        resolving, release = threading.Event(), threading.Event()

        def slow() -> list[str]:
            resolving.set()
            release.wait(LONG_WAIT)
            return ["127.0.0.1"]

        names["a.test"] = slow
        with upstream(answering()) as server:
            items = fetcher().fetch_with_heartbeat([Target("it", server.url(host="a.test"), 60_000)], 0.01)
            while not resolving.is_set():
                next(items)
            items.close()
            release.set()
            assert eventually(lambda: not fetch_threads())

        assert server.connections == 0

    def test_call_that_was_cut_takes_no_lane(self) -> None:
        call = Call(fetcher(), Target("it", "http://127.0.0.1:1/", 5000), time.monotonic())
        call.cut()

        with pytest.raises(lanes.Cut), call.fetcher.lanes.answer(call.target.url, call):
            pytest.fail("it was asked")


class TestDecoding:
    @pytest.mark.parametrize(
        ("content", "value"),
        [
            (b"[1, 2.5, null]", [1, 2.5, None]),
            (b"\xef\xbb\xbf{}", {}),
            (b"", ""),
            (b"not json", "not json"),
            (b"NaN", "NaN"),
            (b'{"a": -Infinity}', '{"a": -Infinity}'),
            (b"1e999", "1e999"),
            (b"[" * 100 + b"]" * 100, json.loads("[" * 100 + "]" * 100)),
            (b"[" * 101 + b"]" * 101, "[" * 101 + "]" * 101),
            (b"[" * 100_000, "[" * 100_000),
            (b"9" * 5000, "9" * 5000),
        ],
        ids=range(11),
    )
    def test_strict_json_is_a_value_and_all_else_its_text(self, content: bytes, value: Any) -> None:
        assert decode_body(content, "utf-8") == value

    def test_whatever_comes_out_can_be_written_as_json(self) -> None:
        for content in (b'"\\ud800"', b"[1e308, 1e309]", b'{"\\u0000": 1}', b"[" * 99 + b"9" * 4300 + b"]" * 99):
            assert json.dumps(decode_body(content, "utf-8"), allow_nan=False)

    def test_invalid_utf8_is_an_error(self) -> None:
        assert fetch_from(answering(b'{"a": "\xff\xfe"}')).error == "the answer is not valid utf-8 text"

    def test_named_encoding_is_used(self) -> None:
        outcome = fetch_from(answering("München".encode("latin-1"), Content_Type="text/plain; charset=ISO-8859-1"))

        assert outcome.body == "München"

    @pytest.mark.parametrize("encoding", ["punycode", "unicode_escape", "hex", "nonsense", "undefined"])
    def test_strange_encodings_are_not_decoded(self, encoding: str) -> None:
        outcome = fetch_from(answering(b"x", Content_Type=f"text/plain; charset={encoding}"))

        assert outcome.error == f"the answer is in the encoding {encoding}, which is not read here"


class TestTLS:
    """With a certificate for `tls.test`, signed by itself: see tests/app/api/tls/README."""

    FILES = Path(__file__).parent / "api" / "tls"

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
