"""Run by test_primitives.py in a process of its own, which is patched; prints what became of each wait."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from greenroom.waits import primitives

primitives.install()
primitives.install()

import json
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
from typing import Any

import gevent
import gevent.pool

from greenroom import deadline
from greenroom.record import CURRENT

BUDGET_SECONDS = 1.0
NEVER_SECONDS = 60.0
SHARED = ThreadPoolExecutor(2)
near, far = socket.socketpair()
full = socket.socketpair()
listener, silent = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
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


cases.update(
    {
        "time.sleep": lambda: time.sleep(NEVER_SECONDS),
        "socket.recv": lambda: near.recv(1),
        "socket.accept": listener.accept,
        "socket.sendall": lambda: full[0].sendall(b"x" * 10_000_000),
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
        "subprocess.check_output": lambda: subprocess.check_output(["sleep", "20"]),
        "select.select": lambda: select.select([near], [], []),
        "select.select with a timeout": lambda: select.select([near], [], [], NEVER_SECONDS),
        "Future.result": lambda: futures.Future[int]().result(),
        "Future.result with a timeout": lambda: futures.Future[int]().result(NEVER_SECONDS),
        "a job of a shared executor": lambda: SHARED.submit(time.sleep, NEVER_SECONDS).result(),
        "gevent.spawn": lambda: gevent.spawn(time.sleep, NEVER_SECONDS).get(),
        "a pool of greenlets": lambda: gevent.pool.Pool(2).apply(time.sleep, (NEVER_SECONDS,)),
        "gevent.sleep": lambda: gevent.sleep(NEVER_SECONDS),
    }
)


@case
def TLS_handshake() -> None:
    with socket.create_connection(silent.getsockname()) as sock:
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
    process = child(stdout=subprocess.PIPE)
    assert process.stdout is not None
    return ended(process, process.stdout.read)


@case
def poll() -> Any:
    poller = select.poll()
    poller.register(near, select.POLLIN)
    return poller.poll(NEVER_SECONDS * 1000)


@case
def selector() -> Any:
    with selectors.DefaultSelector() as chosen:
        chosen.register(near, selectors.EVENT_READ)
        return chosen.select()


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


@case
def a_thread_of_the_view() -> Any:
    seen = []

    def work() -> None:
        try:
            time.sleep(NEVER_SECONDS)
        except TimeoutError as exc:
            seen.append(type(exc).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    with deadline.shield():
        thread.join()
    return seen


@case
def an_executor_of_the_view() -> Any:
    with ThreadPoolExecutor(2) as executor:
        return [type(job.exception()).__name__ for job in futures.wait(three_jobs(executor)).done]


def three_jobs(executor: ThreadPoolExecutor) -> list[Any]:
    jobs = [executor.submit(time.sleep, NEVER_SECONDS) for _ in range(3)]
    with deadline.shield():
        futures.wait(jobs)
    return jobs


@case
def thread_of_a_shared_executor_afterwards() -> Any:
    executor = ThreadPoolExecutor(1)
    first = executor.submit(time.sleep, NEVER_SECONDS)
    with deadline.shield():
        futures.wait([first])
    return [
        type(first.exception()).__name__,
        outside(lambda: executor.submit(deadline.remaining_seconds).result()) > 1e9,
    ]


@case
def thread_started_when_the_budget_is_spent() -> Any:
    spend()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(CURRENT.get()))
    thread.start()
    with deadline.shield():
        thread.join()
    return seen


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
    return child()


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
        with deadline.budget(BUDGET_SECONDS):
            result = {"returned": function()}
    except BaseException as exc:
        result = {"raised": type(exc).__name__, "is_timeout": isinstance(exc, TimeoutError), "message": str(exc)}
    result["seconds"] = time.monotonic() - began
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
