"""Hammer what threads share, by all pairs of those who may share it: `python -m tests.greenroom.waits.hammer SECONDS`.

Who: greenlets of the loop, coroutines of the side loop by way of to_thread(), offloaded functions, threads that
somebody started behind our back. Each object is used by two workers of each of both kinds at once; what does not come
to its end in time, or ends wrong, is told, and the exit status is 1.
"""

# ruff: noqa: E402
from greenroom import patching
from greenroom.settings import Settings

patching.patch(Settings())

import asyncio
import itertools
import logging
import queue
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import gevent
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from greenroom.waits import coroutines
from greenroom.waits.threads import Threads, start_thread
from greenroom.worker.lifecycle import LOOP_RESERVE

ROUNDS = 30
WORKERS = 2
# Nothing here takes a second; a wake-up that was lost never comes.
PATIENCE_SECONDS = 60.0
# Of waits that are meant to be too short now and then.
SHORT_SECONDS = 0.0005
offloaded = Threads(16)

Work = Callable[[], None]


def as_greenlet(work: Work) -> None:
    gevent.spawn(work)


def on_side_loop(work: Work) -> None:
    gevent.spawn(coroutines.run, asyncio.to_thread(work))


def as_offloaded(work: Work) -> None:
    offloaded.submit(work)


def as_thread(work: Work) -> None:
    start_thread(work, ())


KINDS: dict[str, Callable[[Work], None]] = {
    "greenlet": as_greenlet,
    "side loop": on_side_loop,
    "offload": as_offloaded,
    "thread": as_thread,
}


def pause() -> None:
    """Let others run, mostly."""
    chance = random.random()
    if chance < 0.3:
        time.sleep(0)
    elif chance < 0.4:
        time.sleep(SHORT_SECONDS)


class Shared:
    """One object, and what both sides do with it. `check` is called when all are through."""

    def left(self, number: int) -> None:
        raise NotImplementedError

    def right(self, number: int) -> None:
        self.left(number)

    def check(self) -> None:
        pass


class Guarded(Shared):
    """A counter that a lock protects."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.count = 0

    def add(self) -> None:
        seen = self.count
        pause()
        self.count = seen + 1

    def left(self, number: int) -> None:
        with self.lock:
            self.add()

    def right(self, number: int) -> None:
        while not self.lock.acquire(timeout=SHORT_SECONDS):
            pass
        try:
            self.add()
        finally:
            self.lock.release()

    def check(self) -> None:
        assert self.count == 2 * WORKERS * ROUNDS, self.count


class Reentered(Guarded):
    def add(self) -> None:
        with self.lock:
            super().add()


class Signalled(Shared):
    """A condition: one side brings, the other waits."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.things = 0

    def left(self, number: int) -> None:
        with self.condition:
            self.things += 1
            self.condition.notify()
        pause()

    def right(self, number: int) -> None:
        with self.condition:
            while not self.things:
                self.condition.wait(random.choice([None, SHORT_SECONDS]))
            self.things -= 1

    def check(self) -> None:
        assert self.things == 0, self.things


class Events(Shared):
    """Each side sets what the other waits for, in turn."""

    def __init__(self) -> None:
        self.asked = [threading.Event() for _ in range(WORKERS * ROUNDS)]
        self.answered = [threading.Event() for _ in range(WORKERS * ROUNDS)]

    def left(self, number: int) -> None:
        self.asked[number].set()
        self.answered[number].wait()

    def right(self, number: int) -> None:
        while not self.asked[number].wait(SHORT_SECONDS):
            pass
        self.answered[number].set()


class Limited(Shared):
    """At most two at once."""

    def __init__(self) -> None:
        self.semaphore = threading.BoundedSemaphore(2)
        self.inside: list[int] = []

    def left(self, number: int) -> None:
        with self.semaphore:
            self.use(number)

    def right(self, number: int) -> None:
        while not self.semaphore.acquire(timeout=SHORT_SECONDS):
            pass
        try:
            self.use(number)
        finally:
            self.semaphore.release()

    def use(self, number: int) -> None:
        self.inside.append(number)
        assert len(self.inside) <= 2, self.inside
        pause()
        self.inside.remove(number)


class Queued(Shared):
    """All that is put in comes out once; one side waits for room, the other for something in it."""

    def __init__(self, line: Any) -> None:
        self.line = line
        self.got: list[int] = []

    def left(self, number: int) -> None:
        self.line.put(number)

    def right(self, number: int) -> None:
        while True:
            try:
                self.got.append(self.line.get(timeout=random.choice([None, SHORT_SECONDS])))
                return
            except queue.Empty:
                pass

    def check(self) -> None:
        assert sorted(self.got) == list(range(WORKERS * ROUNDS)), self.got
        assert self.line.empty()


class Promised(Shared):
    def __init__(self) -> None:
        self.futures: list[Future[int]] = [Future() for _ in range(WORKERS * ROUNDS)]

    def left(self, number: int) -> None:
        self.futures[number].set_result(number)
        pause()

    def right(self, number: int) -> None:
        assert self.futures[number].result() == number


class Logged(Shared):
    """A handler writes one line at a time, and all of them."""

    def __init__(self) -> None:
        self.logger = logging.Logger("hammered")
        self.lines: list[str] = []
        self.is_writing = False
        self.mixed = 0
        handler = logging.Handler()
        handler.emit = self.emit  # type: ignore[method-assign]
        self.logger.addHandler(handler)

    def emit(self, record: logging.LogRecord) -> None:
        self.mixed += self.is_writing
        self.is_writing = True
        pause()
        self.lines.append(record.getMessage())
        self.is_writing = False

    def left(self, number: int) -> None:
        self.logger.warning("line %d", number)

    def check(self) -> None:
        assert not self.mixed, f"{self.mixed} lines within others"
        assert len(self.lines) == 2 * WORKERS * ROUNDS, len(self.lines)


class Pooled(Shared):
    """SQLAlchemy's pool of two connections."""

    def __init__(self) -> None:
        self.engine = create_engine(
            "sqlite://",
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=0,
            pool_timeout=PATIENCE_SECONDS,
            connect_args={"check_same_thread": False},
        )
        self.out: list[int] = []

    def left(self, number: int) -> None:
        connection = self.engine.raw_connection()
        self.out.append(number)
        assert len(self.out) <= 2, self.out
        pause()
        self.out.remove(number)
        connection.close()

    def check(self) -> None:
        assert self.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        self.engine.dispose()


OBJECTS: dict[str, Callable[[], Shared]] = {
    "Lock": lambda: Guarded(threading.Lock()),
    "RLock": lambda: Reentered(threading.RLock()),
    "Condition": Signalled,
    "Event": Events,
    "Semaphore": Limited,
    "Queue": lambda: Queued(queue.Queue(3)),
    "PriorityQueue": lambda: Queued(queue.PriorityQueue()),
    "SimpleQueue": lambda: Queued(queue.SimpleQueue()),
    "Future": Promised,
    "logging": Logged,
    "QueuePool": Pooled,
}


def hammer(shared: Shared, left: str, right: str) -> str:
    """Return the errors; "" if there were none. Runs on: a greenlet."""
    errors: list[str] = []
    through: list[None] = []

    def worker(act: Callable[[int], None], first: int) -> Work:
        def work() -> None:
            try:
                for number in range(first, WORKERS * ROUNDS, WORKERS):
                    act(number)
            except BaseException:
                errors.append(traceback.format_exc())
            through.append(None)

        return work

    for first in range(WORKERS):
        KINDS[left](worker(shared.left, first))
        KINDS[right](worker(shared.right, first))
    until = time.monotonic() + PATIENCE_SECONDS
    while len(through) < 2 * WORKERS and time.monotonic() < until:
        gevent.sleep(0.001)
    if errors:
        return errors[0]
    if len(through) < 2 * WORKERS:
        return f"{2 * WORKERS - len(through)} of {2 * WORKERS} wait for ever"
    try:
        shared.check()
    except AssertionError as exc:
        return f"{exc!r}"
    return ""


def main(seconds: float) -> int:
    until = time.monotonic() + seconds
    for _ in range(LOOP_RESERVE):
        gevent.get_hub().loop.ref()  # as a worker does
    wrong = times = 0
    while not wrong and (not times or time.monotonic() < until):
        times += 1
        for (name, make), left, right in itertools.product(OBJECTS.items(), KINDS, KINDS):
            problem = hammer(make(), left, right)
            if problem:
                wrong += 1
                print(f"{name}, {left} and {right}: {problem}", flush=True)
    print(f"{times} times {len(OBJECTS) * len(KINDS) ** 2} pairs, {wrong} wrong", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
