"""Waits of the standard library's primitives and of gevent's."""

import queue
import select
import socket
import ssl
import subprocess
import threading
import time
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
import gevent.pool

from .cases import LATER_SECONDS, NEVER_SECONDS, case, cases, child, ended, held_by_other, late_socket

SHARED = ThreadPoolExecutor(2)
full = socket.socketpair()
silent = socket.create_server(("127.0.0.1", 0))


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
