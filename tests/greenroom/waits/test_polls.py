"""select.poll() in a patched process answers what it does in a plain one, and lets everything else run."""

import subprocess
import sys
from pathlib import Path

import pytest

from .patched import check

ROOT = Path(__file__).resolve().parents[3]
PATCHED = """
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
"""
IN_THREAD = """
from gevent._hub_local import get_hub_if_exists
from greenroom.waits.threads import start_thread
"""
ASKED = """
import os, select, socket, sys, threading, time

def asked(name, descriptor, event, *timeout):
    poller = select.poll()
    poller.register(descriptor, event)
    print(name, [event for _, event in poller.poll(*timeout)], flush=True)

def all_asked():
    reader, writer = os.pipe()
    os.close(reader)
    asked("nobody reads", writer, select.POLLOUT)
    asked("nobody reads, with a timeout", writer, select.POLLOUT, 60_000)
    asked("nobody reads, without a wait", writer, select.POLLOUT, 0)
    asked("closed", reader, select.POLLIN)
    asked("closed, with a timeout", reader, select.POLLIN, 60_000)
    asked("closed, without a wait", reader, select.POLLIN, 0)
    reader, writer = os.pipe()
    asked("nothing yet", reader, select.POLLIN, 1)
    asked("nothing yet, without a wait", reader, select.POLLIN, 0)
    threading.Timer(0.05, os.close, [writer]).start()
    asked("nobody writes any more", reader, select.POLLIN)
    asked("a file", os.open(sys.executable, os.O_RDONLY), select.POLLIN | select.POLLOUT)
    near, far = socket.socketpair()
    asked("room", near, select.POLLIN | select.POLLOUT)
    far.send(b"x")
    asked("something to read", near, select.POLLIN)
    far.close()
    asked("a peer that has closed", near, select.POLLIN)
    print(select.poll().poll(1), select.poll().poll(0))
    for timeout in ("1", [], 0 * 1j):
        try:
            asked("no timeout", reader, select.POLLIN, timeout)
        except TypeError:
            print("TypeError")
"""
CALLED = "\nall_asked()\n"
CALLED_IN_THREAD = """
done = []

def run():
    all_asked()
    assert get_hub_if_exists() is None  # it blocks, and has no event loop
    done.append(True)

start_thread(run, ())
while not done:
    time.sleep(0.001)
"""


def answers(code: str) -> list[str]:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize("code", [ASKED + CALLED, IN_THREAD + ASKED + CALLED_IN_THREAD])
def test_poll_answers_as_plain_python_does(code: str) -> None:
    plain = answers(ASKED + CALLED)

    assert len(plain) == 17
    assert answers(PATCHED + code) == plain


@pytest.mark.parametrize(
    ("event", "timeouts"),
    [("POLLOUT", "()"), ("POLLOUT", "(60_000,)"), ("POLLOUT", "(0,)"), ("POLLIN", "(0,)")],
)
def test_a_caller_that_polls_without_end_leaves_each_turn_of_the_loop_to_the_others(event: str, timeouts: str) -> None:
    check(f"""
    import select, socket

    near, far = socket.socketpair()
    poller = select.poll()
    poller.register(near, select.{event})
    polls = 0

    def poll():
        global polls
        while True:
            poller.poll(*{timeouts})
            polls += 1

    gevent.spawn(poll)
    wait_until(lambda: polls)
    a, b = socket.socketpair()

    def answer():
        while True:
            b.send(b.recv(1))

    gevent.spawn(answer)
    before = polls
    for _ in range(100):
        a.send(b"x")
        assert a.recv(1) == b"x"  # each of both waits for a turn in which the system is asked about sockets
    assert 0 < polls - before <= 100 * 4, polls - before
    """)


def test_a_wait_ends_with_its_timeout_with_a_timeout_around_it_and_with_a_signal() -> None:
    check("""
    import os, select, signal

    reader, writer = os.pipe()
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    started = time.monotonic()
    assert poller.poll(50) == []
    assert time.monotonic() - started >= 0.05

    for timeout in ((), (None,), (-1,), (60_000,)):
        with gevent.Timeout(0.01, False):
            poller.poll(*timeout)
            raise AssertionError

    class Called(Exception):
        pass

    def handler(*_):
        raise Called

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        poller.poll()
    except Called:
        pass
    else:
        raise AssertionError

    def writes(*_):
        os.write(writer, b"x")

    signal.signal(signal.SIGALRM, writes)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert poller.poll() == [(reader, select.POLLIN)]
    """)


def test_a_caller_without_a_timeout_is_told_what_it_was_woken_for_where_another_was_quicker() -> None:
    check("""
    import select, socket

    near, far = socket.socketpair()

    def ask():
        poller = select.poll()
        poller.register(near, select.POLLIN)
        found = poller.poll()
        near.setblocking(False)
        try:
            near.recv(1)
        except BlockingIOError:
            pass
        return found

    callers = [gevent.spawn(ask) for _ in range(3)]
    gevent.sleep(0)
    far.send(b"x")
    gevent.joinall(callers, timeout=30)
    assert [caller.value for caller in callers] == [[(near.fileno(), select.POLLIN)]] * 3
    """)


def test_a_callback_of_the_loop_may_look() -> None:
    check("""
    import os, select

    reader, writer = os.pipe()
    found = []

    def look():
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        poller.register(writer, select.POLLOUT)
        found.append(poller.poll(0))

    gevent.get_hub().loop.run_callback(look)
    wait_until(lambda: found)
    assert found == [[(writer, select.POLLOUT)]]
    """)
