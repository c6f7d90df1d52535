"""The blame for a long slice, with times that are made up."""

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from greenroom.insight import garbage, safepoint, stacks
from greenroom.insight import stalls as stalls_module
from greenroom.insight.account import Account
from greenroom.insight.machine import Use
from greenroom.insight.slices import Slices
from greenroom.insight.stacks import Call
from greenroom.insight.stalls import Look, Seen, Stalls, most_seen

THRESHOLD = 0.1
APPLICATION = Call("/srv/app/views.py", 12, "search")
LIBRARY = Call(stacks._PATHS["stdlib"] + "/re/__init__.py", 166, "match")
DUMP = f"""Stack (most recent call first):
  File "{LIBRARY.file}", line 166 in match
  File "/srv/app/views.py", line 12 in search
"""


class Machine:
    """A machine that says what the test wants."""

    def __init__(self) -> None:
        self.used = Use()

    def use(self, *, is_exact: bool = True) -> Use:
        return self.used

    def close(self) -> None:
        pass


class Watched:
    """Stalls with a machine of the test's, and what they log."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.machine = Machine()
        self.stalls = Stalls(THRESHOLD, now=clock.now, machine=self.machine)  # type: ignore[arg-type]
        self.stalls.thread_id = 0xAA
        self.account = Account(clock.now())
        self.account.id = "id-1"
        self.account.environ = {"PATH_INFO": "/search"}

    def long_slice(
        self,
        seconds: float,
        *,
        cpu: float = 0.0,
        delayed: float = 0.0,
        looks: int = 0,
        is_watched: bool = True,
        is_asking: bool = False,
        is_continued: bool = False,
    ) -> None:
        """A slice of the request has ended, of which so much was seen; then everything is thought about."""
        stalls, began = self.stalls, self.clock.now()
        stalls.earlier = Use(at=began)
        stalls.looked_at = began
        self.clock.advance(seconds)
        if is_watched:
            stalls.gaps.extend((began + number * 0.033, 0.033, 0.03) for number in range(1, int(seconds / 0.033)))
            stalls.looked_at = began + seconds
        else:
            stalls.gaps.append((began + seconds, seconds, 0.03 if is_asking else seconds))
        self.machine.used = Use(at=began + seconds, cpu=cpu, delayed=delayed)
        stalls.looks.extend(Look(began, [LIBRARY, APPLICATION]) for _ in range(looks))
        if is_continued:
            stalls.continued_at = began + seconds / 2
        stalls.ended(began, began + seconds, self.account, None)
        pending, stalls._pending = stalls._pending, []
        for seen in pending:
            stalls.judge(seen)


@pytest.fixture
def watched(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    safepoint.MAIN.install()  # it keeps the loop that there is
    monkeypatch.setattr("gevent.get_hub", lambda: _NoHub())
    watched = Watched(clock)
    watched.stalls.start(Slice(), 0xAA)  # type: ignore[arg-type]
    yield watched
    watched.stalls.stop()


class _NoHub:
    class loop:
        @staticmethod
        def run_callback(*_: object) -> None:
            """The test thinks about it itself."""


def test_line_of_the_application_is_blamed_and_not_the_library_that_it_called(watched: Watched) -> None:
    watched.long_slice(0.15, cpu=0.15, looks=3)

    (stall,) = watched.stalls.last
    assert stall.line == "/srv/app/views.py:12"
    assert "match" in stall.called
    assert stall.request == "id-1"
    assert stall.seconds == pytest.approx(0.15)
    assert not stall.holds_gil


@pytest.mark.parametrize("seconds", [0.12, 0.152, 1.3, 2.0, 3.0])
def test_code_that_sleeps_and_holds_the_gil_is_blamed(watched: Watched, seconds: float) -> None:
    watched.long_slice(seconds, looks=1, is_watched=False, is_asking=True)

    assert [stall.line for stall in watched.stalls.last] == ["/srv/app/views.py:12"]


def test_code_that_waits_without_the_gil_is_blamed(watched: Watched) -> None:
    watched.long_slice(2.0, looks=50)

    assert [stall.line for stall in watched.stalls.last] == ["/srv/app/views.py:12"]


@pytest.mark.parametrize(
    "what",
    [
        {"is_watched": False},  # a frozen container: nobody saw anything, and nothing was used
        {"is_watched": False, "looks": 1},  # SIGSTOP: somebody looked once, when it was over
        {"is_continued": True, "looks": 1, "cpu": 0.02},  # SIGCONT came
        {"delayed": 1.97, "cpu": 0.03, "looks": 10},  # the processor was somebody else's
    ],
)
def test_what_was_taken_from_the_process_blames_nobody(watched: Watched, what: dict[str, Any]) -> None:
    watched.long_slice(2.0, **what)

    assert not watched.stalls.last
    assert watched.stalls.total == 0
    assert watched.stalls.unblamed == 1


def test_stolen_time_is_taken_out_of_the_requests_cpu(watched: Watched) -> None:
    watched.long_slice(1.0, cpu=0.6, delayed=0.4, looks=5)

    assert watched.account.seconds[0] == pytest.approx(-0.4)  # of what the slice has added before
    assert sum(watched.account.seconds) == pytest.approx(0.0)
    assert watched.stalls.last[0].stolen_seconds == pytest.approx(0.4)


def test_twenty_blocks_are_twenty_reports_counted_at_their_line(watched: Watched) -> None:
    for _ in range(20):
        watched.long_slice(0.15, cpu=0.15, looks=2)
        watched.clock.advance(0.05)

    (line,) = watched.stalls.lines.values()
    assert line.count == watched.stalls.total == 20
    assert line.seconds == pytest.approx(3.0)
    assert line.longest_seconds == pytest.approx(0.15)


def test_log_of_many_stalls_is_bounded_and_says_so(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(200):
        watched.long_slice(0.11, cpu=0.11, looks=1)

    assert watched.stalls.total == 200
    lines = [message for message in caplog.messages if message.startswith("stall: ")]
    assert 60 <= len(lines) < 100
    assert any("more not logged" in line for line in lines)


def test_lines_that_are_kept_are_bounded_and_the_worst_stay(watched: Watched) -> None:
    for number in range(300):
        seen = Seen(
            at=0.0, began=0.0, seconds=0.2 + number, account=None, request="", route="", use=Use(), is_continued=False
        )
        seen.place = [Call("/srv/app/views.py", number, "view")]
        watched.stalls._keep(watched.stalls._explain(seen))

    assert len(watched.stalls.lines) == 200
    assert "/srv/app/views.py:299" in watched.stalls.lines
    assert "/srv/app/views.py:0" not in watched.stalls.lines


def test_the_line_that_is_seen_most_often_is_blamed() -> None:
    once, often = Call("/srv/app/a.py", 1, "a"), Call("/srv/app/b.py", 2, "b")

    call, stack = most_seen([Look(0.0, stack) for stack in ([once], [LIBRARY, often], [often])])

    assert call == often
    assert stack == [LIBRARY, often]


def test_look_that_came_late_does_not_outvote_the_application() -> None:
    ours = Call(stacks._OURS[0] + "worker/wire.py", 131, "Wire.send")

    looks = [Look(0.0, stack) for stack in ([ours], [ours], [LIBRARY, APPLICATION])]

    assert most_seen(looks)[0] == APPLICATION


def test_our_callback_of_the_garbage_collector_is_no_part_of_what_it_stopped() -> None:
    seen: list[stacks.Stack] = []

    def now() -> float:
        seen.append(stacks.of_frame(sys._getframe(1)))
        return 0.0

    collector = garbage.Garbage(1.0, now=now)
    collector.start()
    try:
        gc.collect()
    finally:
        collector.stop()

    assert [stack[0].file for stack in seen] == [__file__, __file__]
    ours, theirs = (
        f'  File "{garbage.__file__}", line 31 in collecting',
        '  File "/srv/app/views.py", line 12 in search',
    )
    assert stacks.of_dump(f"{stacks.DUMP_BEGIN}:\n{ours}\n{theirs}") == [[APPLICATION]]


@pytest.mark.parametrize("file", ["<sqlalchemy generated instrumented_attribute>", "<string>", "<frozen importlib>"])
def test_generated_code_is_not_blamed_but_who_calls_it(file: str) -> None:
    generated = Call(file, 2, "set")

    assert stacks.guilty([generated, LIBRARY, APPLICATION]) == APPLICATION
    assert stacks.guilty([generated]) == generated


def test_one_look_after_a_long_call_of_c_code_outweighs_many_short_ones() -> None:
    in_c, in_python = Call("/srv/app/a.py", 1, "a"), Call("/srv/app/b.py", 2, "b")

    call, _ = most_seen([Look(0.0, [in_c], seconds=1.0)] + [Look(0.0, [in_python], seconds=0.03)] * 10)

    assert call == in_c


def test_dump_that_was_cut_short_gives_what_there_is() -> None:
    assert stacks.of_dump(DUMP[: len(DUMP) - 20]) == [[LIBRARY]]


def test_pipe_that_is_full_holds_nobody_up(clock: Any) -> None:
    stalls = Stalls(THRESHOLD, now=clock.now, machine=Machine())  # type: ignore[arg-type]
    stalls.start(None, 0xAA)  # type: ignore[arg-type]
    try:
        written = 0
        with contextlib.suppress(BlockingIOError):
            while written < 10_000_000:
                written += os.write(stalls._writer, b"x" * 4096)
        assert written < 10_000_000
        assert len(stalls._read()) >= 65_536
    finally:
        stalls.stop()


def test_child_that_is_forked_under_the_alarm_can_end(clock: Any) -> None:
    stalls = Stalls(THRESHOLD, now=clock.now, machine=Machine())  # type: ignore[arg-type]
    stalls.start(Slice(), 0xAA)  # type: ignore[arg-type]
    try:
        stalls.look()
        child = os.fork()
        if not child:
            os._exit(0)
        wait_until(lambda: os.waitpid(child, os.WNOHANG) != (0, 0))
        stalls.look()
    finally:
        stalls.stop()


class Slice:
    """Slices of a loop that has nothing to do, or is at one slice for ever."""

    def __init__(self, *, is_at_work: bool = False) -> None:
        self.is_at_work = is_at_work
        self.began = 0.0

    def is_idle(self) -> bool:
        return not self.is_at_work


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_garbage_collection_is_named_where_it_was_most_of_a_stall(watched: Watched) -> None:
    stalls, began = watched.stalls, watched.clock.now()
    stalls.garbage.collecting("start", {})
    watched.clock.advance(0.2)
    stalls.garbage.collecting("stop", {})
    watched.clock.advance(-0.2)

    watched.long_slice(0.25, cpu=0.25, looks=3)

    assert began > 0
    assert stalls.last[0].called == "garbage collection for 0.200 s"


def test_look_stands_for_the_time_since_the_one_before(watched: Watched) -> None:
    stalls, clock = watched.stalls, watched.clock
    stalls.slices = Slice(is_at_work=True)  # type: ignore[assignment]
    stalls.slices.began = stalls.passed_at = stalls.looked_at = clock.now()

    for seconds in (0.01, 0.05, 0.2):
        clock.advance(seconds)
        stalls._passed(sys._getframe())

    first, second = stalls.looks
    assert (first.seconds, second.seconds) == (pytest.approx(0.06), pytest.approx(0.2))
    assert first.stack[0].function == "test_look_stands_for_the_time_since_the_one_before"
    assert [first.holds_gil, second.holds_gil] == [False, True]


def test_switch_that_ends_a_slice_is_not_taken_for_its_stack(watched: Watched) -> None:
    """A look that comes there finds the greenlet that begins, and the slice of the one that ends."""
    stalls, seen = watched.stalls, []
    account = SimpleNamespace(CURRENT=None)

    def now() -> float:
        seen.append(stalls_module._is_switching(sys._getframe(1)))
        return 0.0

    slices = Slices(None, account, 1.0, lambda *_: None, now=now)
    slices.switched("switch", (None, None))

    assert seen == [False, True]  # in __init__, and in the switch
    assert stalls.slices is not None


def test_application_that_has_the_signal_keeps_it_and_is_told(
    clock: Any, caplog: pytest.LogCaptureFixture, theirs: Any
) -> None:
    stalls = Stalls(THRESHOLD, now=clock.now, machine=Machine())  # type: ignore[arg-type]
    stalls.start(Slice(is_at_work=True), 0xAA)  # type: ignore[arg-type]
    try:
        clock.advance(1.0)
        stalls.look()
    finally:
        stalls.stop()

    assert signal.getsignal(signal.SIGURG) is theirs
    assert any("SIGURG" in message for message in caplog.messages)
    assert not stalls.looks


@pytest.fixture
def theirs() -> Iterator[Any]:
    def handler(number: int, frame: Any) -> None:
        raise AssertionError("nobody sent it")

    before = signal.signal(signal.SIGURG, handler)
    yield handler
    signal.signal(signal.SIGURG, before)
