"""Calls of upstreams that go well or badly: each source has one outcome, within its time and its size."""

import gzip
import json
import socket
import threading
import tracemalloc
from typing import Any

import pytest
import requests

from app.bodies import decode_body
from app.upstream import Target
from tests.app.api.upstreams import LONG_WAIT, Connection, Flood, answering, dribbling, hanging, sending, upstream

from .fetching import LIMIT, OK, SHORT_MS, Names, fetch_from, fetch_one, fetcher


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
        flood = Flood(OK)
        with upstream(flood) as server:
            outcome = fetch_one(server.url())

        assert outcome.error == "the answer is larger than 100,000 bytes"
        assert flood.sent < 50

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
