"""Alarms name the line that holds the GIL, and harm nobody."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from greenroom.insight import safepoint, stacks
from greenroom.insight.alarm import Dump, Knock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the timers are Linux's")
HOLDS_THE_GIL = ctypes.PyDLL(None).usleep


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(reader: int) -> str:
    try:
        return os.read(reader, 1_000_000).decode()
    except BlockingIOError:
        return ""


def test_stack_is_written_again_and_again_while_c_code_holds_the_gil(pipe: tuple[int, int]) -> None:
    alarm = Dump(pipe[1], 0.05, 0.05)
    alarm.put_off()
    computes_in_c(0.5)
    alarm.stop()

    found = stacks.of_dump(read(pipe[0]))

    assert len(found) >= 2
    assert found[0][0].file == __file__
    assert found[0][0].function == "computes_in_c"


def computes_in_c(seconds: float) -> None:
    """Uses so much of the processor, in calls of C code that hold the GIL."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1_000_000))


def test_code_that_waits_is_not_interrupted(pipe: tuple[int, int], at_safe_points: list[Any]) -> None:
    """Many a library takes EINTR for an error, or for the end of its sleep."""
    dump, knocking = Dump(pipe[1], 0.02, 0.02), Knocking(0.02)
    dump.put_off()

    for sleeps in (HOLDS_THE_GIL, ctypes.CDLL(None).usleep):
        began = time.monotonic()
        assert sleeps(300_000) == 0
        assert time.monotonic() - began >= 0.3
    knocking.stop()
    dump.stop()

    assert read(pipe[0]) == ""
    assert len(at_safe_points) >= 2


def test_a_knock_comes_at_the_line_that_held_the_gil_when_it_is_done(at_safe_points: list[stacks.Stack]) -> None:
    knocking = Knocking(0.05)
    at_safe_points.clear()
    HOLDS_THE_GIL(400_000); line = sys._getframe().f_lineno  # fmt: skip # noqa: E702
    knocking.stop()

    # On a busy machine the first may come before the call.
    passed = [(stack[0].function, stack[0].line) for stack in at_safe_points]
    assert ("test_a_knock_comes_at_the_line_that_held_the_gil_when_it_is_done", line) in passed


class Knocking:
    """A thread that has a Knock which nobody puts off."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_made, self.is_over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.is_made.wait(10)

    def _run(self) -> None:
        knock = Knock(self.seconds)
        knock.put_off()
        self.is_made.set()
        self.is_over.wait(10)
        knock.stop()

    def stop(self) -> None:
        self.is_over.set()
        self.thread.join()


@pytest.fixture
def at_safe_points() -> Iterator[list[stacks.Stack]]:
    """The stacks of this thread when it passed safe points."""
    seen: list[stacks.Stack] = []
    assert safepoint.MAIN.install()
    safepoint.MAIN.on_passing = lambda frame: seen.append(stacks.of_frame(frame))
    yield seen
    safepoint.MAIN.on_passing = None


def test_signal_that_the_application_took_for_itself_does_not_end_the_process(pipe: tuple[int, int]) -> None:
    done = subprocess.run([sys.executable, "-c", RESET], capture_output=True, text=True, timeout=100)

    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


RESET = """
import os, signal, time
from greenroom.insight.alarm import Dump

alarm = Dump(os.open(os.devnull, os.O_WRONLY), 0.3, 0.1)
alarm.put_off()
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    if number <= signal.SIGRTMAX and signal.getsignal(number) is not None:
        signal.signal(number, signal.SIG_DFL)
alarm.put_off()
until = time.thread_time() + 0.6
while time.thread_time() < until:
    sum(range(1_000_000))
print("done")
"""


def test_alarm_that_is_put_off_in_time_does_not_go_off(pipe: tuple[int, int]) -> None:
    alarm = Dump(pipe[1], 30.0, 30.0)
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        alarm.put_off()
    alarm.stop()

    assert read(pipe[0]) == ""


def test_alarm_that_was_stopped_writes_nothing_and_can_be_made_again(pipe: tuple[int, int]) -> None:
    for _ in range(3):
        alarm = Dump(pipe[1], 0.001, 0.001)
        alarm.put_off()
        alarm.stop()
    read(pipe[0])

    alarm.put_off()
    computes_in_c(0.05)

    assert read(pipe[0]) == ""


ENDING = """
import atexit, os, time
from greenroom.insight import safepoint
from greenroom.insight.alarm import Dump, Knock

safepoint.MAIN.install()
alarms = Dump(os.open(os.devnull, os.O_WRONLY), 0.001, 0.001), Knock(0.001)
for alarm in alarms:
    atexit.register(alarm.stop)
    alarm.put_off()
until = time.thread_time() + 0.05
while time.thread_time() < until:
    pass
"""


def test_program_that_ends_under_alarms_ends_well() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=100)

    assert (done.returncode, done.stderr) == (0, "")
