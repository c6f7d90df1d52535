"""Looks at greenlets happen where those stand still."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import greenroom
from greenroom.insight import safepoint, stacks
from greenroom.insight.safepoint import SafePoint

STORM = Path(__file__).with_name("storm.py")
SLEEPS_WITHOUT_THE_GIL = ctypes.CDLL(None).usleep
SOURCES = Path(greenroom.__file__).parent


@pytest.fixture
def here() -> Iterator[SafePoint]:
    point = SafePoint()
    before = signal.getsignal(signal.SIGURG)
    signal.signal(signal.SIGURG, signal.SIG_DFL)
    assert point.install()
    yield point
    signal.signal(signal.SIGURG, before)


def in_thread(function: Any) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    return thread, answers


def test_question_is_answered_in_the_main_thread_where_that_is(here: SafePoint) -> None:
    thread, answers = in_thread(lambda: here.ask(lambda frame: (threading.get_ident(), stacks.of_frame(frame)), 10))
    while thread.is_alive():
        sum(range(100))

    ident, stack = answers[0]
    assert ident == threading.get_ident()
    assert "test_question_is_answered_in_the_main_thread_where_that_is" in [call.function for call in stack]


def test_second_signal_as_the_handling_of_the_first_begins_is_told_where_the_first_came(here: SafePoint) -> None:
    seen: list[str] = []
    here.on_passing = lambda frame: seen.append(frame.f_code.co_name)

    def come_again(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is SafePoint._pass.__code__:
            sys.setprofile(None)
            here._pass(safepoint.NUMBER, frame)

    sys.setprofile(come_again)
    try:
        here._pass(safepoint.NUMBER, sys._getframe())
    finally:
        sys.setprofile(None)

    assert seen == ["test_second_signal_as_the_handling_of_the_first_begins_is_told_where_the_first_came"] * 2


def test_question_is_answered_by_a_loop_that_idles(here: SafePoint) -> None:
    signal.signal(signal.SIGURG, signal.SIG_DFL)  # it would run Python until it idles
    thread, answers = in_thread(lambda: here.ask(lambda frame: ("answered", frame), 10))

    while thread.is_alive():
        gevent.sleep(0.01)

    assert answers == [("answered", None)]


def test_question_that_finds_only_c_code_is_not_answered_and_the_stack_is_told_all_the_same(here: SafePoint) -> None:
    main = threading.get_ident()

    def ask() -> stacks.Stack:
        while here.ask(lambda frame: "answered", 0.05) is not None:
            continue  # the main thread is not there yet
        return safepoint.stack_in_c(main)

    thread, answers = in_thread(ask)
    SLEEPS_WITHOUT_THE_GIL(1_000_000)
    thread.join()

    (stack,) = answers
    name = "test_question_that_finds_only_c_code_is_not_answered_and_the_stack_is_told_all_the_same"
    assert [call.function for call in stack[:1]] == [name]
    assert stack[0].file == __file__


def test_error_in_an_answer_stays_there(here: SafePoint) -> None:
    def fail(frame: Any) -> None:
        raise ValueError("not for whoever happens to run")

    thread, answers = in_thread(lambda: here.ask(fail, 10))
    while thread.is_alive():
        sum(range(100))

    assert answers == [None]
    assert here.failures == 1


def test_signal_that_the_application_took_later_is_left_to_it(here: SafePoint) -> None:
    came = []
    signal.signal(signal.SIGURG, lambda *_: came.append(1))

    thread, answers = in_thread(here.trip)
    thread.join()
    sum(range(100))

    assert (answers, came) == ([False], [])


def test_nothing_is_sent_that_could_interrupt_a_system_call(here: SafePoint) -> None:
    reader, writer = os.pipe()
    came = []
    here.on_passing = lambda frame: came.append(1)
    thread, _ = in_thread(lambda: ([here.trip() for _ in range(20)], os.write(writer, b"x")))

    poll = ctypes.CDLL(None, use_errno=True).poll
    descriptor = (ctypes.c_int * 2)(reader, 1)  # struct pollfd, POLLIN
    assert poll(descriptor, 1, 10_000) == 1
    thread.join()
    sum(range(100))

    assert came
    os.close(reader)
    os.close(writer)


def storm(seconds: float) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", STORM.read_text(), str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds * 2 + 60,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-5000:]}"
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_looking_all_the_time_harms_no_greenlets_that_switch_raise_and_end() -> None:
    done = storm(5)

    assert done["greenlets"] > 1000
    assert done["raised"] > 10_000
    assert min(done["looks"], done["answers"], done["dumps"]) > 100
    assert done["failures"] == 0


@pytest.mark.nightly
@pytest.mark.timeout(5400)
def test_looking_for_an_hour_harms_no_greenlets_that_switch_raise_and_end() -> None:
    done = storm(3600)

    assert min(done["looks"], done["answers"], done["dumps"]) > 100_000
    assert done["failures"] == 0


def users_of(names: str) -> set[str]:
    """Files of what runs in servers and in tests. `greenroom doctor` looks in a child of its own, which ends right
    afterwards: that can harm nobody."""
    files = [path for path in SOURCES.rglob("*.py") if SOURCES / "doctor" / "inside" not in path.parents]
    return {path.name for path in files if re.search(names, path.read_text())}


def test_nobody_looks_at_the_frames_of_another_thread() -> None:
    """`sys._current_frames()` returns frames of threads that run."""
    assert users_of(r"_current_frames\b|_current_exceptions\b") == set()


def test_nobody_goes_through_objects_that_are_not_ours() -> None:
    """`isinstance` over all objects calls properties of the application's: Django's request.user asks the database."""
    assert users_of(r"get_objects|get_referrers") <= {"leftovers.py"}
