"""Alarms name the line that holds the GIL, and harm nobody."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from greenroom.insight import stacks
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
    HOLDS_THE_GIL(400_000)  # wakes early: the signal interrupts it
    HOLDS_THE_GIL(400_000)
    alarm.stop()

    found = stacks.of_dump(read(pipe[0]))

    assert len(found) >= 2
    assert found[0][0].file == __file__
    assert found[0][0].function == "test_stack_is_written_again_and_again_while_c_code_holds_the_gil"


def test_a_knock_comes_at_the_line_that_held_the_gil_when_it_is_done() -> None:
    seen = []
    knock = Knock(lambda frame: seen.append(stacks.of_frame(frame)[0]), 0.05)
    knock.put_off()
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        HOLDS_THE_GIL(400_000)
    knock.stop()

    assert {call.function for call in seen} == {"test_a_knock_comes_at_the_line_that_held_the_gil_when_it_is_done"}


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
    time.sleep(0.05)

    assert read(pipe[0]) == ""


STORM = """
import time
import gevent
from greenroom.insight import stacks
from greenroom.insight.alarm import Knock

seen = [0]

def knocked(frame):
    seen[0] += bool(stacks.of_frame(frame))

alarm = Knock(knocked, 0.0005)

def work(depth):
    if depth:
        return [work(depth - 1), lambda: depth]
    gevent.sleep(0)

until = time.monotonic() + 3.0
while time.monotonic() < until:
    alarm.put_off()
    gevent.joinall([gevent.spawn(work, number % 20) for number in range(200)])
alarm.stop()
print(seen[0])
"""


def test_knocks_without_end_harm_no_python_that_runs() -> None:
    """What faulthandler's own watchdog does not survive: frames and stacks that come and go while it reads."""
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


ENDING = """
import atexit, os, time
from greenroom.insight.alarm import Dump, Knock

alarms = Dump(os.open(os.devnull, os.O_WRONLY), 0.001, 0.001), Knock(lambda frame: None, 0.001)
for alarm in alarms:
    atexit.register(alarm.stop)
    alarm.put_off()
time.sleep(0.05)
"""


def test_program_that_ends_under_alarms_ends_well() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=100)

    assert (done.returncode, done.stderr) == (0, "")
