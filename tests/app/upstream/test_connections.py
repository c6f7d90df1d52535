"""Connections of calls to upstreams: which are kept, and what becomes of calls that are cut."""

import threading
import time

import pytest

from app import lanes
from app.lanes import Lane
from app.upstream import Call, Outcome, Target
from tests.app.api.upstreams import LONG_WAIT, Connection, answering, eventually, hanging, upstream

from .fetching import OK, Names, fetch_one, fetch_threads, fetcher


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
            items = fetcher().fetch_all([Target("it", server.url(), 60_000)], 0.01)
            first, second = next(items), next(items)
            items.close()

        assert (first, second) == (None, None)


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
            items = fetcher().fetch_all([Target("it", server.url(), 60_000)], 0.01)
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
            items = fetcher().fetch_all([Target("it", server.url(host="a.test"), 60_000)], 0.01)
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
