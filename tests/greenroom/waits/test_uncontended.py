"""Short ways of events and semaphores, and attempts without waiting, in patched processes."""

import pytest

from .patched import check


def test_whoever_leaves_an_event_leaves_nothing_of_his_behind() -> None:
    check(
        """
        event = threading.Event()
        killed = [gevent.spawn(event.wait) for _ in range(3)]
        staying = gevent.spawn(event.wait)
        wait_until(lambda: len(event._cond._waiters) == 4)
        with deadline.budget(0.05):
            try:
                event.wait()
            except BudgetSpent:
                pass
            else:
                raise AssertionError("it is not set")
        gevent.killall(killed)
        assert len(event._cond._waiters) == 1

        event.set()

        assert staying.get(timeout=10) is True
        assert not event._cond._waiters
        event.clear()
        assert event.wait(0.01) is False
        """
    )


def test_an_event_is_waited_for_from_everywhere() -> None:
    check(
        """
        event = threading.Event()
        waiting = [gevent.spawn(event.wait) for _ in range(5)]
        got = [in_thread(event.wait) for _ in range(5)]
        wait_until(lambda: len(event._cond._waiters) == 10)

        in_thread(event.set)

        assert [one.get(timeout=10) for one in waiting] == [True] * 5
        wait_until(lambda: got == [[True]] * 5)
        """
    )


def test_attempts_in_a_loop_let_others_free_what_they_are_for() -> None:
    check(
        """
        semaphore, lock = threading.Semaphore(0), threading.Lock()
        lock.acquire()

        def work():
            for _ in range(3):
                gevent.sleep(0)
            semaphore.release()
            lock.release()

        attempts = [
            lambda: semaphore.acquire(timeout=0),
            lambda: semaphore.acquire(False),
            lambda: lock.acquire(False),
            lambda: lock.acquire(timeout=0),
        ]
        for attempt in attempts:
            gevent.spawn(work)
            with gevent.Timeout(30):
                while not attempt():
                    pass
            semaphore.acquire(blocking=False)
            lock.acquire(blocking=False)
        """
    )


def test_one_attempt_is_what_cpython_says() -> None:
    check(
        """
        semaphore = threading.Semaphore(1)
        assert semaphore.acquire(timeout=0) and not semaphore.acquire(timeout=0) and not semaphore.acquire(timeout=-1)
        for wrong, error in (
            (lambda: semaphore.acquire(False, 0), ValueError),
            (lambda: semaphore.acquire(timeout="1"), TypeError),
        ):
            try:
                wrong()
            except error:
                continue
            raise AssertionError(error)
        semaphore.release()
        assert semaphore._value == 1
        """
    )


def test_the_owner_of_a_lock_is_noted_unless_it_is_a_part_of_the_standard_librarys() -> None:
    check(
        """
        from concurrent.futures import Future
        from greenroom.insight.locks import Locks
        Locks().install()
        for part in (threading.Event()._cond, threading.Semaphore()._cond, Future()._condition):
            with part:
                assert part._lock.note is None
        for own in (threading.Lock(), threading.RLock(), threading.Condition(), queue.Queue().mutex):
            with own:
                note = getattr(own, "_lock", own).note
                assert note[0] is gevent.getcurrent() and note[2].co_filename == "<string>", note
        """
    )


@pytest.mark.parametrize(
    "loop",
    [
        # What a worker of ThreadPoolExecutor does on Python 3.11 with jobs that submit the next ones.
        "semaphore = threading.Semaphore(0); step = lambda: (semaphore.release(), semaphore.acquire(timeout=0))",
        "semaphore = threading.BoundedSemaphore(1); step = lambda: (semaphore.acquire(), semaphore.release())",
        "semaphore = threading.Semaphore(0); step = lambda: semaphore.acquire(timeout=0)",
        "lock = threading.Lock(); lock.acquire(); step = lambda: lock.acquire(False)",
        "from concurrent.futures import ThreadPoolExecutor; pool = ThreadPoolExecutor(1)\n"
        "again = lambda: (counted(), pool.submit(again))\n"
        "step = lambda: (again(), gevent.sleep(60))",
    ],
)
def test_who_never_waits_leaves_turns_of_the_loop_to_others(loop: str) -> None:
    check(
        f"""
        import socket
        steps = 0

        def counted():
            global steps
            steps += 1

        def work():
            while True:
                step()
                counted()

        exec({loop!r})
        a, b = socket.socketpair()

        def answer():
            while True:
                b.send(b.recv(1))

        gevent.spawn(answer)
        gevent.spawn(work)
        wait_until(lambda: steps)
        with gevent.Timeout(30):
            for _ in range(200):
                a.send(b"x")
                assert a.recv(1) == b"x"  # the loop asks its sockets
        assert steps > 100
        """
    )
