"""`multiprocessing` from a worker: its pipes and semaphores wait in the loop, not in C.

The same for `multiprocess`, the copy of it that pickles with dill, under pathos and Hugging Face's datasets.

    Connection      one end of a pipe, under Pipe, Queue, SimpleQueue, Pool, Manager and others (loguru's `enqueue`).
                    Data to read has come, and data to write finds room
    SemLock         under Lock, RLock, Semaphore, Condition, Event, and around the pipe of each queue. It is taken if
                    it is free, and asked for again and again if not: another process holds it, which no loop hears of
    connection.wait, Connection.poll, Process.join(timeout)
                    a selector that waits in the loop

The descriptors block, as CPython's do: the process at the other end may be one without a loop. An RLock knows threads,
not greenlets: two requests of one worker are the same to it.
"""

import os
import select
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import gevent.selectors

from .. import clock
from ..forking import MULTIPROCESSING
from ..on_import import when_imported
from ..replacements import Put, part
from .polling import READ, WRITE
from .subprocesses import wait_for
from .threads import can_wait

# How soon a semaphore that another process holds is asked for again: first, and at the most.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.0005, 0.02


def install() -> None:
    """Runs on: the main thread, after patching. Safe to call again."""
    for package in MULTIPROCESSING:
        when_imported(f"{package}.connection", part(package)(_install_connections))
        when_imported(f"{package}.synchronize", part(package)(_install_semaphores))


def _install_connections(put: Put, module: ModuleType) -> None:
    connection: Any = module.Connection
    plain_init = connection.__init__

    def init(self: Any, handle: Any, *args: Any, **kwargs: Any) -> None:
        plain_init(self, handle, *args, **kwargs)
        os.set_blocking(self._handle, True)  # gevent's sockets, from which some are made, do not

    put(connection, "__init__", init)
    put(connection, "_send", send)
    put(connection, "_recv", receive(connection._recv))
    put(module, "_WaitSelector", gevent.selectors.GeventSelector)


def send(self: Any, data: Any) -> None:
    view = memoryview(data)
    while len(view):
        # Where there is room for anything there is for so much.
        part = view[: select.PIPE_BUF] if wait_for(self._handle, WRITE) else view
        view = view[os.write(self._handle, part) :]


def receive(plain: Callable[..., Any]) -> Callable[..., Any]:
    def recv(self: Any, size: int) -> Any:
        return plain(self, size, read)

    return recv


def read(descriptor: int, size: int) -> bytes:
    wait_for(descriptor, READ)
    return os.read(descriptor, size)


def _install_semaphores(put: Put, module: ModuleType) -> None:
    semaphore: Any = module.SemLock
    plain_make = semaphore._make_methods

    def make_methods(self: Any) -> None:
        plain_make(self)
        self.acquire = patient(self._semlock.acquire)

    put(semaphore, "_make_methods", make_methods)
    put(semaphore, "__enter__", lambda self: self.acquire())


def patient(plain: Callable[..., bool]) -> Callable[..., bool]:
    """SemLock.acquire."""

    def acquire(block: bool = True, timeout: float | None = None) -> bool:
        if not block or not can_wait():
            return plain(block, timeout)
        until = None if timeout is None else clock.now() + max(timeout, 0.0)
        pause = FIRST_PAUSE_SECONDS
        while not plain(False):
            left = LONGEST_PAUSE_SECONDS if until is None else until - clock.now()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return True

    return acquire
