"""What a request may do when its budget is spent, and what goes on without it."""

import os
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
import gevent.pool

from greenroom import deadline

from .cases import LATER_SECONDS, NEVER_SECONDS, case, child, ended, late_socket, outside, spend


@case
def Thread_join() -> Any:
    over = threading.Event()
    thread = threading.Thread(target=lambda: outside(over.wait))
    outside(thread.start)
    try:
        return thread.join()
    finally:
        assert thread.is_alive(), "join() does not take an error for the thread's end"
        over.set()
        outside(thread.join)
        assert not thread.is_alive()


@case
def Thread_join_with_a_timeout() -> Any:
    thread = threading.Thread(target=lambda: outside(lambda: time.sleep(1)))
    outside(thread.start)
    thread.join(0.05)
    return thread.is_alive()


def waits(done: list[str]) -> None:
    """The waits of a helper, past the end of the request that started it."""
    lock, event = threading.Lock(), threading.Event()
    time.sleep(LATER_SECONDS / 2)
    done.append(f"sleep, event {event.wait(0.1)}")
    with held_for_a_moment(lock):
        done.append("lock")
    near = late_socket(NEVER_SECONDS)
    done.append(near.recv(4).decode())


def held_for_a_moment(lock: Any) -> Any:
    lock.acquire()
    outside(threading.Timer(0.2, lock.release).start)
    return lock


WAITED = ["sleep, event False", "lock", "late"]


@case
def a_thread_of_the_view() -> Any:
    done: list[str] = []
    thread = threading.Thread(target=waits, args=(done,))
    thread.start()
    spend()
    with deadline.shield():
        thread.join()
    return done == WAITED


@case
def an_executor_of_the_view() -> Any:
    """Leaving `with` waits for the jobs, in the grace."""
    done: list[str] = []
    try:
        with ThreadPoolExecutor(2) as executor:
            job = executor.submit(waits, done)
            job.result()
    except TimeoutError:
        return [done == WAITED, job.done()]


@case
def a_timer() -> Any:
    began = time.monotonic()
    fired: list[float] = []
    threading.Timer(LATER_SECONDS, lambda: fired.append(time.monotonic() - began)).start()
    spend()
    outside(lambda: time.sleep(LATER_SECONDS))
    return [seconds >= LATER_SECONDS for seconds in fired]


@case
def thread_started_when_the_budget_is_spent() -> Any:
    spend()
    done: list[str] = []
    thread = threading.Thread(target=waits, args=(done,))
    thread.start()
    outside(thread.join)
    return done == WAITED


@case
def clean_up_in_finally() -> Any:
    """Clean-up may wait for anything it needs."""
    done: list[Any] = []
    try:
        time.sleep(NEVER_SECONDS)
    except TimeoutError:
        done.append(late_socket(NEVER_SECONDS).recv(4).decode())
        done.append(subprocess.run(["echo", "x"], capture_output=True).stdout.decode())
        with held_for_a_moment(threading.Lock()):
            done.append("lock")
        done.append(threading.Event().wait(0.1))
    return done


@case
def wait_on_an_event_that_is_retried() -> None:
    event = threading.Event()
    while not event.wait(NEVER_SECONDS):
        pass


@case
def a_lock_that_is_free() -> Any:
    spend()
    lock, again = threading.Lock(), threading.RLock()
    with lock, again, again:
        return [lock.acquire(blocking=False), lock.acquire(timeout=0), bool(again.acquire(blocking=False))]


@case
def a_process_started_when_the_budget_is_spent() -> Any:
    spend()
    with child() as process:
        process.kill()
    return process.returncode


def own_timeout(wait: Callable[[], Any]) -> Any:
    """The application's, of a class that is an OSError, as the budget's is."""
    with gevent.Timeout(0.1, TimeoutError("mine")):
        return wait()


@case
def own_timeout_around_subprocess_run() -> Any:
    return own_timeout(lambda: subprocess.run(["sleep", "20"]))


@case
def own_timeout_around_waitpid() -> Any:
    process = child()
    return ended(process, lambda: own_timeout(lambda: os.waitpid(process.pid, 0)))


@case
def a_log_line_written_when_the_budget_is_spent() -> Any:
    import logging

    class Slow(logging.Handler):
        written = 0

        def emit(self, record: logging.LogRecord) -> None:
            time.sleep(0.01)
            Slow.written += 1

    logger = logging.Logger("slow")
    logger.addHandler(Slow())
    spend()
    logger.warning("spent")
    return Slow.written
