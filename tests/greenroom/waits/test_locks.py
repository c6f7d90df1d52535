"""Locks and queues that greenlets and real threads share, in patched processes of their own."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PREPARED = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
import queue, threading, time
import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from greenroom import deadline
from greenroom.errors import BudgetSpent
from greenroom.waits.threads import start_thread

real_sleep = monkey.get_original("time", "sleep")

def in_thread(function):
    "Call it in a real thread, and return a list that has what it returns as soon as it does."
    got = []
    start_thread(lambda: got.append(function()), ())
    return got

def wait_until(condition):
    with gevent.Timeout(30):
        while not condition():
            gevent.sleep(0.001)
"""


def run(code: str, *, prepared: str = PREPARED) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prepared + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=90,
    )


def check(code: str) -> None:
    result = run(code)
    assert result.returncode == 0, result.stdout + result.stderr


def hammer(seconds: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.greenroom.waits.hammer", str(seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + 300,
    )


def test_what_is_shared_works_between_all_who_may_share_it() -> None:
    result = hammer(1)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.nightly
@pytest.mark.timeout(4200)
def test_it_does_so_for_an_hour() -> None:
    result = hammer(3600)

    assert result.returncode == 0, result.stdout + result.stderr


def test_who_takes_a_lock_again_and_again_lets_the_others_have_it() -> None:
    check(
        """
        lock = threading.Lock()
        got = []

        def greedy():
            while len(got) < 3:
                with lock:
                    time.sleep(0.001)

        def modest(who):
            with lock:
                got.append(who)

        gevent.spawn(greedy)
        gevent.sleep(0)
        gevent.spawn(modest, 1)
        gevent.spawn(modest, 2)
        gevent.sleep(0)  # both stand in line
        start_thread(modest, (3,))
        wait_until(lambda: len(got) == 3)
        assert got == [1, 2, 3], got
        """
    )


def test_garbage_collector_may_take_the_lock_that_is_waited_for() -> None:
    check(
        """
        import gc
        from greenroom.waits import parking
        gc.disable()
        collected = []

        class Collected:
            def __init__(self, lock):
                self.lock, self.itself = lock, self

            def __del__(self):
                with self.lock:
                    collected.append(1)

        plain = parking.InLoop._switch_out

        def switch_out(self, *, is_endable):
            gc.collect()  # it is in line, and does not wait yet
            plain(self, is_endable=is_endable)

        parking.InLoop._switch_out = switch_out
        for lock in (threading.Lock(), threading.RLock()):
            other = gevent.spawn(lambda: (lock.acquire(), gevent.sleep(0.01), lock.release()))
            gevent.sleep(0)
            Collected(lock)
            with gevent.Timeout(10), lock:
                pass
            other.get()
        assert collected == [1, 1], collected
        """
    )


def test_signal_handler_may_take_again_what_is_just_being_taken() -> None:
    check(
        """
        import signal
        lock, line = threading.RLock(), queue.SimpleQueue()

        def handler(number, frame):
            with lock:
                line.put(1)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        with gevent.Timeout(30):
            until = time.monotonic() + 1
            while time.monotonic() < until:
                with lock, lock:
                    pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert line.qsize() > 10
        assert not lock._is_owned()
        """
    )


def test_thread_gets_no_hub_by_waiting() -> None:
    check(
        """
        lock, line, event = threading.Lock(), queue.SimpleQueue(), threading.Event()
        lock.acquire()

        def wait():
            with lock:
                return line.get(), event.wait(), get_hub_if_exists()

        got = in_thread(wait)
        gevent.sleep(0.01)
        lock.release()
        gevent.sleep(0.01)
        line.put(1)
        gevent.sleep(0.01)
        event.set()
        wait_until(lambda: got)
        assert got == [(1, True, None)], got
        """
    )


def test_loop_with_nothing_to_do_waits_for_threads() -> None:
    check(
        """
        lock, line = threading.Lock(), queue.SimpleQueue()
        lock.acquire()
        in_thread(lambda: (real_sleep(0.05), lock.release()))
        lock.acquire()
        in_thread(lambda: (real_sleep(0.05), line.put(2)))
        assert line.get() == 2
        """
    )


def test_hub_waits_for_a_thread_for_a_moment_and_not_for_greenlets() -> None:
    check(
        """
        from gevent.exceptions import BlockingSwitchOutError
        lock = threading.Lock()
        seen = []

        def callback():
            try:
                with lock:
                    seen.append("taken")
            except BlockingSwitchOutError:
                seen.append("refused")

        held = in_thread(lambda: (lock.acquire(), real_sleep(0.05), lock.release()))
        while not lock.locked():
            real_sleep(0.001)
        gevent.get_hub().loop.run_callback(callback)
        wait_until(lambda: seen)
        with lock:
            gevent.get_hub().loop.run_callback(callback)
            wait_until(lambda: len(seen) == 2)
        assert seen == ["taken", "refused"], seen
        """
    )


def test_who_is_killed_while_waiting_loses_no_wake_up() -> None:
    check(
        """
        lock = threading.Lock()
        got = []

        def wait():
            with lock:
                got.append(1)

        for _ in range(200):
            lock.acquire()
            waiting = [gevent.spawn(wait) for _ in range(3)]
            gevent.sleep(0)
            lock.release()
            waiting[0].kill(block=False)  # it has been woken, and does not run yet
            with gevent.Timeout(5):
                gevent.joinall(waiting)
        assert 400 <= len(got) <= 600 and not lock.locked()
        """
    )


def test_waits_of_a_request_end_with_it_and_taking_a_lock_back_does_not() -> None:
    check(
        """
        LONG = 60

        def outcome(wait):
            try:
                with deadline.budget(0.05):
                    return wait()
            except BaseException as exc:
                return type(exc).__name__

        def held(lock):
            gevent.spawn(lock.acquire)
            gevent.sleep(0)
            return lock

        def under(condition, wait):
            with condition:
                return wait(condition)

        def taken_back():
            condition = threading.Condition(threading.Lock())
            with condition:
                gevent.spawn(lambda: (condition.acquire(), gevent.sleep(0.2), condition.release()))
                began = time.monotonic()
                got = condition.wait(LONG)
                return got, time.monotonic() - began > 0.15, condition._is_owned()

        def filled(line):
            line.put(1)
            return line

        expected = {
            "Lock": (lambda: held(threading.Lock()).acquire(), "BudgetSpent"),
            "Lock, timeout": (lambda: held(threading.Lock()).acquire(timeout=LONG), False),
            "with Lock": (lambda: held(threading.Lock()).__enter__(), "BudgetSpent"),
            "RLock": (lambda: held(threading.RLock()).acquire(), "BudgetSpent"),
            "RLock, timeout": (lambda: held(threading.RLock()).acquire(timeout=LONG), False),
            "Semaphore": (lambda: threading.Semaphore(0).acquire(), "BudgetSpent"),
            "Semaphore, timeout": (lambda: threading.Semaphore(0).acquire(timeout=LONG), False),
            "Event": (lambda: threading.Event().wait(), "BudgetSpent"),
            "Event, timeout": (lambda: threading.Event().wait(LONG), False),
            "Condition": (lambda: under(threading.Condition(), lambda c: c.wait()), "BudgetSpent"),
            "Condition, timeout": (lambda: under(threading.Condition(), lambda c: c.wait(LONG)), False),
            "wait_for": (lambda: under(threading.Condition(), lambda c: c.wait_for(lambda: 0)), "BudgetSpent"),
            "wait_for, timeout": (lambda: under(threading.Condition(), lambda c: c.wait_for(lambda: 0, LONG)), 0),
            "Barrier": (lambda: threading.Barrier(2).wait(), "BudgetSpent"),
            "Barrier, timeout": (lambda: threading.Barrier(2).wait(LONG), "BrokenBarrierError"),
            "get": (lambda: queue.Queue().get(), "BudgetSpent"),
            "get, timeout": (lambda: queue.Queue().get(timeout=LONG), "Empty"),
            "get, positional": (lambda: queue.LifoQueue().get(True, LONG), "Empty"),
            "put": (lambda: filled(queue.Queue(1)).put(2), "BudgetSpent"),
            "put, timeout": (lambda: filled(queue.PriorityQueue(1)).put(2, timeout=LONG), "Full"),
            "join": (lambda: filled(queue.Queue()).join(), "BudgetSpent"),
            "SimpleQueue": (lambda: queue.SimpleQueue().get(), "BudgetSpent"),
            "SimpleQueue, timeout": (lambda: queue.SimpleQueue().get(timeout=LONG), "Empty"),
            "taken back": (taken_back, (False, True, True)),
        }
        running = {name: gevent.spawn(outcome, wait) for name, (wait, _) in expected.items()}
        gevent.joinall(list(running.values()), timeout=20)
        got = {name: greenlet.value for name, greenlet in running.items() if greenlet.ready()}
        wrong = {name: got.get(name, "goes on") for name, (_, right) in expected.items() if got.get(name, "") != right}
        assert not wrong, wrong
        """
    )


def test_threads_and_greenlets_that_a_request_has_started_wait_on() -> None:
    check(
        """
        from concurrent.futures import ThreadPoolExecutor
        event, got = threading.Event(), []

        def wait():
            got.append(event.wait(30))

        with deadline.budget(0.05):
            threading.Thread(target=wait).start()
            ThreadPoolExecutor(1).submit(wait)
            gevent.spawn(wait)
            gevent.sleep(0)
            try:
                time.sleep(10)
            except TimeoutError:
                pass
        gevent.sleep(0.05)
        assert got == [], got
        event.set()
        wait_until(lambda: len(got) == 3)
        assert got == [True] * 3, got
        """
    )


def test_locks_look_and_behave_as_those_of_cpython() -> None:
    check(
        """
        import _thread, copy, pickle, weakref
        for kind in (threading.Lock, threading.RLock, _thread.allocate_lock, _thread.RLock):
            lock = kind()
            assert repr(lock).startswith("<unlocked _thread."), repr(lock)
            with lock:
                assert repr(lock).startswith("<locked _thread."), repr(lock)
            weakref.ref(lock)
            for refused, error in (
                (lambda: pickle.dumps(lock), TypeError),
                (lambda: copy.copy(lock), TypeError),
                (lambda: lock.release(), RuntimeError),
                (lambda: lock.acquire(False, 1), ValueError),
                (lambda: lock.acquire(timeout=-2), ValueError),
                (lambda: lock.acquire(timeout=threading.TIMEOUT_MAX * 2), OverflowError),
            ):
                try:
                    refused()
                except error:
                    continue
                raise AssertionError(error)
        assert not hasattr(queue.SimpleQueue(), "__len__") and not hasattr(queue.Queue(), "__len__")
        assert isinstance(threading.RLock(), type(threading.RLock()))
        assert type(threading.RLock()).__module__ == "_thread", "trio asks"
        try:
            type("Mine", (type(threading.Lock()),), {})
        except TypeError:
            pass
        else:
            raise AssertionError("CPython refuses it")
        """
    )


def test_an_rlock_can_be_a_base_as_cpythons_can() -> None:
    """joblib and loky, and so scikit-learn, have such a class."""
    check(
        """
        class Mine(type(threading.RLock())):
            def _recursion_count(self):
                return 1

        mine, got = Mine(), []
        thread = threading.Thread(target=lambda: got.append(mine.acquire(timeout=0.05)))
        with mine, mine:
            assert mine._recursion_count() == 1 and mine._is_owned()
            thread.start()
            thread.join()
        assert got == [False], got
        condition = threading.Condition(mine)
        with condition:
            assert not condition.wait(0.01)
        """
    )


def test_queue_s_own_put_and_get_are_asked_also_where_nobody_waits() -> None:
    run(
        """
        line, seen = queue.Queue(), []
        put, get = line._put, line._get
        line._put = lambda item: (seen.append(("put", item)), put(item))
        line._get = lambda: (seen.append("get"), get())[1]
        line.put(1)
        assert (line.get(), seen) == (1, [("put", 1), "get"])
        """
    )


def test_patching_once_more_leaves_ours_in_place() -> None:
    result = run(
        """
        monkey.patch_all(sys=True)
        import _thread, logging
        from greenroom.waits.stdlib import locks, queues
        assert threading.Lock is _thread.allocate_lock is locks.Lock
        assert type(threading.RLock()) is type(logging._lock) is locks.RLock
        assert queue.SimpleQueue is queues.SimpleQueue
        assert queue.Queue.__module__ == threading.Event.__module__[:0] + "queue"
        """,
        prepared=PREPARED.replace('"-W", "error"', ""),
    )
    assert "AssertionError" not in result.stderr, result.stderr


def test_locks_that_gevent_has_made_while_it_patched_are_ours() -> None:
    check(
        """
        import concurrent.futures.thread as executors
        import logging
        from greenroom.waits.stdlib.locks import Lock, RLock
        assert type(threading._active_limbo_lock) is RLock and type(logging._lock) is RLock
        assert type(executors._global_shutdown_lock) is Lock
        main = in_thread(lambda: threading.main_thread().join(0.01))
        wait_until(lambda: main)
        assert threading.main_thread().is_alive()
        """
    )


def test_a_wait_is_told_as_what_the_application_waits_for() -> None:
    """Streams listen to events, queues and conditions; a lock, a semaphore and a future are somebody's to give."""
    check("""
        import select, socket, textwrap
        from concurrent.futures import Future
        from greenroom.in_flight import CURRENT
        from greenroom.insight.account import Account
        from greenroom.insight.locks import Locks

        Locks().install()
        lock, semaphore, condition = threading.Lock(), threading.BoundedSemaphore(1), threading.Condition()
        lock.acquire(), semaphore.acquire()
        near, far = socket.socketpair()

        def until_told():
            with condition:
                condition.wait(60)

        polling = '''
        def polling():
            poll = select.poll()
            poll.register(near.fileno(), select.POLLIN)
            poll.poll(60_000)
        '''
        of_psycopg = {"__name__": "psycopg.waiting", "select": select, "near": near}
        exec(textwrap.dedent(polling), of_psycopg)
        exec(textwrap.dedent(polling))

        waits = {
            "lock lock": lock.acquire,
            "lock semaphore": semaphore.acquire,
            "lock event": threading.Event().wait,
            "lock queue": queue.Queue().get,
            "lock condition": until_told,
            "other poll": polling,
            "query a query through psycopg": of_psycopg["polling"],
        }
        future = Future()
        told = {}

        def ask(name, wait):
            account = Account(time.monotonic())
            CURRENT.set(account)
            told[name] = account
            account.greenlet = gevent.getcurrent()
            wait()

        started = [gevent.spawn(ask, name, wait) for name, wait in [*waits.items(), ("future", future.result)]]
        gevent.sleep(0.05)
        said = {name: f"{one.wait().kind} {one.wait().detail}" for name, one in told.items()}
        assert said == {**{name: name for name in waits}, "future": "lock lock"}, said
        gevent.killall(started)
        near.close(), far.close()
    """)
