"""Run by test_stdlib.py in a process of its own, which is patched; prints what became of each wait.

All cases run at once, each in a greenlet of its own, whose budget ends after BUDGET_SECONDS. Work that goes on after
that has LATER_SECONDS to wait for: longer than the budget, shorter than the grace.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from greenroom.waits import stdlib

stdlib.install()
stdlib.install()

import json
import os
import queue
import select
import selectors
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import gevent
import gevent.pool

from greenroom import deadline
from greenroom.in_flight import CURRENT

BUDGET_SECONDS = 1.0
LATER_SECONDS = 2.5
NEVER_SECONDS = 60.0
SHARED = ThreadPoolExecutor(2)
full = socket.socketpair()
listener, silent, quiet = (socket.create_server(("127.0.0.1", 0)) for _ in range(3))
Case = Callable[[], Any]
cases: dict[str, Case] = {}


def case(function: Case) -> Case:
    cases[function.__name__] = function
    return function


def outside(function: Case) -> Any:
    """As if no request ran it."""
    token = CURRENT.set(None)
    try:
        return function()
    finally:
        CURRENT.reset(token)


def held_by_other(lock: Any) -> Any:
    outside(lambda: threading.Thread(target=lock.acquire).start())
    return lock


def child(**pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "20"], **pipes)


def ended(process: subprocess.Popen[bytes], wait: Callable[[], Any]) -> Any:
    try:
        return wait()
    finally:
        process.kill()


def late_socket(timeout: float | None = None) -> socket.socket:
    """Something comes when the budget is spent already."""
    near, far = socket.socketpair()
    near.settimeout(timeout)

    def send() -> None:
        with far, suppress(BrokenPipeError):
            time.sleep(LATER_SECONDS)
            far.sendall(b"late")

    outside(threading.Thread(target=send).start)
    return near


cases.update(
    {
        "time.sleep": lambda: time.sleep(NEVER_SECONDS),
        "socket.recv": lambda: late_socket().recv(4).decode(),
        "socket.sendall with a timeout": lambda: (
            full[0].settimeout(NEVER_SECONDS) or full[0].sendall(b"x" * 10_000_000)
        ),
        "Lock.acquire": lambda: held_by_other(threading.Lock()).acquire(),
        "Lock.acquire with a timeout": lambda: held_by_other(threading.Lock()).acquire(timeout=NEVER_SECONDS),
        "with lock": lambda: held_by_other(threading.Lock()).__enter__(),
        "RLock.acquire": lambda: held_by_other(threading.RLock()).acquire(),
        "Semaphore.acquire": lambda: threading.Semaphore(0).acquire(),
        "Barrier.wait": lambda: threading.Barrier(2).wait(),
        "Event.wait": lambda: threading.Event().wait(),
        "Event.wait with a timeout": lambda: threading.Event().wait(NEVER_SECONDS),
        "Queue.get": lambda: queue.Queue[int]().get(),
        "Queue.get with a timeout": lambda: queue.Queue[int]().get(timeout=NEVER_SECONDS),
        "LifoQueue.get": lambda: queue.LifoQueue[int]().get(),
        "PriorityQueue.get": lambda: queue.PriorityQueue[int]().get(),
        "SimpleQueue.get": lambda: queue.SimpleQueue[int]().get(),
        "subprocess.run": lambda: subprocess.run(["sleep", "20"]),
        "subprocess.run with a timeout": lambda: subprocess.run(["sleep", "20"], timeout=NEVER_SECONDS),
        "subprocess.check_output": lambda: subprocess.check_output(["sleep", "20"]),
        "select.select": lambda: len(select.select([late_socket()], [], [])[0]),
        "select.select with a timeout": lambda: len(select.select([late_socket()], [], [], NEVER_SECONDS)[0]),
        "Future.result": lambda: futures.Future[int]().result(),
        "Future.result with a timeout": lambda: futures.Future[int]().result(NEVER_SECONDS),
        "a job of a shared executor": lambda: SHARED.submit(time.sleep, LATER_SECONDS).result(),
        "gevent.spawn": lambda: gevent.spawn(time.sleep, LATER_SECONDS).get(),
        "a pool of greenlets": lambda: gevent.pool.Pool(2).apply(time.sleep, (LATER_SECONDS,)),
        "gevent.sleep": lambda: gevent.sleep(LATER_SECONDS),
    }
)


@case
def TLS_handshake() -> None:
    with socket.create_connection(silent.getsockname(), NEVER_SECONDS) as sock:
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")


@case
def Condition_wait() -> None:
    condition = threading.Condition()
    with condition:
        condition.wait()


@case
def Condition_over_a_lock() -> Any:
    lock = threading.Lock()
    condition = threading.Condition(lock)
    try:
        with condition:
            return [condition.wait(NEVER_SECONDS), lock.locked(), condition.wait(NEVER_SECONDS)]
    finally:
        assert lock.acquire(blocking=False)


@case
def Queue_put() -> None:
    line: queue.Queue[int] = queue.Queue(1)
    line.put(1)
    line.put(2)


@case
def Popen_wait() -> Any:
    process = child()
    return ended(process, process.wait)


@case
def Popen_communicate() -> Any:
    process = child(stdout=subprocess.PIPE)
    return ended(process, process.communicate)


@case
def Popen_stdout_read() -> Any:
    process = subprocess.Popen(["sleep", str(LATER_SECONDS)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    return ended(process, process.stdout.read).decode()


@case
def poll() -> Any:
    poller, near = select.poll(), late_socket()
    poller.register(near, select.POLLIN)
    return len(poller.poll(NEVER_SECONDS * 1000))


@case
def poll_again_and_again() -> Any:
    """As a driver waits for its answer: it is never torn out of that, not even after the grace."""
    near = late_socket()
    poller = select.poll()
    poller.register(near, select.POLLIN)
    CURRENT.get().clean_up_at_most = 0.0  # type: ignore[union-attr]
    while not poller.poll(100):
        pass
    return near.recv(4).decode()


@case
def selector() -> Any:
    with selectors.DefaultSelector() as chosen:
        chosen.register(late_socket(), selectors.EVENT_READ)
        return len(chosen.select())


@case
def selector_with_a_timeout() -> Any:
    with selectors.DefaultSelector() as chosen:
        chosen.register(late_socket(), selectors.EVENT_READ)
        return len(chosen.select(NEVER_SECONDS))


@case
def epoll() -> Any:
    with selectors.EpollSelector() as chosen:
        chosen.register(late_socket(), selectors.EVENT_READ)
        return len(chosen.select())


@case
def epoll_with_a_timeout() -> Any:
    with select.epoll() as chosen:
        near = late_socket()
        chosen.register(near, select.EPOLLIN)
        return len(chosen.poll(NEVER_SECONDS))


@case
def a_socket_that_was_ended_is_used_again() -> Any:
    """By whoever has it next: never the rest of somebody else's answer."""
    sock = late_socket(NEVER_SECONDS)
    outcomes = [error_of(lambda: sock.recv(4))]
    outside(lambda: time.sleep(LATER_SECONDS))
    return [*outcomes, error_of(lambda: sock.sendall(b"?")), sock.recv(4).decode()]


@case
def a_file_over_a_socket_that_was_ended() -> Any:
    file = late_socket(NEVER_SECONDS).makefile("rb")
    return [error_of(file.readline), error_of(file.readline)]


@case
def a_datagram_with_a_timeout() -> Any:
    """A late one would be taken for an answer to the next question."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(LATER_SECONDS)
        sock.bind(("127.0.0.1", 0))
        began = time.monotonic()
        return [error_of(lambda: sock.recv(1)), time.monotonic() - began >= LATER_SECONDS - 0.1]


@case
def a_listener_that_was_ended_still_listens() -> Any:
    listener.settimeout(NEVER_SECONDS)
    first = error_of(listener.accept)
    with socket.create_connection(listener.getsockname()), listener.accept()[0]:
        return first


@case
def a_socket_at_which_another_greenlet_waits() -> Any:
    sock = full_socket()
    sock.settimeout(LATER_SECONDS)
    reader = gevent.spawn(lambda: sock.recv(1))
    gevent.sleep(0)
    return [error_of(lambda: sock.sendall(b"x" * 10_000_000)), reader.get()]


def full_socket() -> Any:
    near, far = socket.socketpair()

    def answer() -> None:
        time.sleep(LATER_SECONDS / 2)
        far.sendall(b"y")
        time.sleep(LATER_SECONDS)
        far.close()

    outside(threading.Thread(target=answer).start)
    return near


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as exc:
        return "TimeoutError" if isinstance(exc, TimeoutError) else type(exc).__name__
    return "none"


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


def spend() -> None:
    try:
        time.sleep(NEVER_SECONDS)
    except TimeoutError:
        pass


def outcome(function: Case) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with deadline.budget(BUDGET_SECONDS) as record:
            result: dict[str, Any] = {"returned": function()}
    except BaseException as exc:
        result = {"raised": type(exc).__name__, "is_timeout": isinstance(exc, TimeoutError), "message": str(exc)}
    result["seconds"] = time.monotonic() - began
    result["refusals"] = record.refusals
    return result


def main() -> None:
    running = {name: gevent.spawn(outcome, function) for name, function in cases.items()}
    gevent.joinall(list(running.values()), timeout=20)
    print(
        json.dumps(
            {name: greenlet.value if greenlet.ready() else None for name, greenlet in running.items()}, default=repr
        )
    )


if __name__ == "__main__":
    main()
