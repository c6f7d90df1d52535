"""Locks and queues that greenlets and real threads share: who gets them, and who waits; in patched processes."""

import subprocess
import sys

import pytest

from .patched import ROOT, check


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


def test_answer_of_a_client_that_is_shared_under_a_lock_never_becomes_the_next_callers() -> None:
    """Each asks and waits for a word under one lock; the first one's time is over before the answer comes."""
    check(
        """
        def get(answers):
            return answers.get(timeout=60)

        def get_without_a_timeout(answers):
            return answers.get()

        def poll(answers):
            while not answers.qsize():
                time.sleep(0.002)
            return answers.get()

        def answers_of_two(lock, make, wait):
            questions, answers, records = queue.Queue(), make(), []

            def ask(number, seconds):
                with deadline.budget(seconds) as record:
                    records.append(record)
                    with lock:
                        questions.put(number)
                        return wait(answers)

            asking = [gevent.spawn(ask, 1, 0.01)]
            wait_until(lambda: records and records[0].is_ended)
            asking.append(gevent.spawn(ask, 2, 60))
            for _ in asking:
                answers.put(questions.get())
            gevent.joinall(asking, timeout=20)
            return [one.value for one in asking]

        kinds = {
            (lock.__name__, make.__name__, wait.__name__): gevent.spawn(answers_of_two, lock(), make, wait)
            for lock in (threading.Lock, threading.RLock, threading.Condition)
            for make in (queue.Queue, queue.SimpleQueue)
            for wait in (get, get_without_a_timeout, poll)
        }
        gevent.joinall(list(kinds.values()))
        wrong = {name: kind.value for name, kind in kinds.items() if kind.value != [1, 2]}
        assert not wrong, wrong
        """
    )


def test_request_that_has_released_its_lock_ends_as_ever_and_so_does_one_that_waits_for_a_second_lock() -> None:
    check(
        """
        def ended(lock, wait):
            with deadline.budget(0.05):
                try:
                    wait(lock)
                except TimeoutError:
                    return True

        def released(lock):
            with lock:
                pass
            threading.Event().wait()

        def released_by_another(lock):
            lock.acquire()
            gevent.spawn(lock.release)
            threading.Event().wait()

        def dropped(lock):
            type(lock)().acquire()
            threading.Event().wait()

        def second(lock):
            other = threading.Lock()
            gevent.spawn(other.acquire).join()
            with lock, other:
                pass

        def under_its_condition(lock):
            condition = threading.Condition(lock)
            with condition:
                condition.wait()

        cases = {(lock, wait) for lock in (threading.Lock, threading.RLock)
                 for wait in (released, dropped, second, under_its_condition)} | {(threading.Lock, released_by_another)}
        running = {(lock.__name__, wait.__name__): gevent.spawn(ended, lock(), wait) for lock, wait in cases}
        gevent.joinall(list(running.values()), timeout=20)
        wrong = [name for name, one in running.items() if one.value is not True]
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
