"""Real OS threads for what can't yield: the greenlet that asked waits in the event loop until the answer comes.

in line -> running in a thread -> answer posted to the hub -> the greenlet goes on
   |            |
   |            +-> nobody waits any more: the answer is dropped when it comes
   +-> nobody waits any more: never run
"""

import functools
import importlib
import os
import select
import threading
from _queue import SimpleQueue  # gevent replaces queue.SimpleQueue; here real threads must block
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
import gevent.hub
import gevent.socket
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.event import Event
from greenlet import getcurrent

from .. import clock
from ..in_flight import CURRENT, FOREVER, OWN, UNBOUNDED, Kind, Record, Wait
from ..replacements import Declined, Put, part
from ..timers import Timer
from .polling import polled, real_poll

# Under patching the names in `threading` are gevent's and would make greenlets.
get_thread_ident: Callable[[], int] = monkey.get_original("_thread", "get_ident")
_start_new_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
real_close: Callable[[int], None] = monkey.get_original("os", "close")
# epoll, a pipe or an eventfd, a timer's; and some for other threads meanwhile.
LOOP_DESCRIPTORS = 8
# After a fork it is still the same: the thread that forks is the one that goes on.
LOOP_THREAD = threading.main_thread().ident if not monkey.is_module_patched("threading") else get_thread_ident()

# The hub of the main event loop, from when a real thread is started.
loops_hub: list[Any] = [None]


def start_thread(function: Callable[..., object], args: tuple[object, ...] = ()) -> int:
    """Run `function` in a thread of the operating system. Threads that it starts are real as well, see starting."""
    if is_loop_thread():
        loops_hub[0] = get_hub_if_exists()
    return _start_new_thread(_run, (function, args))


def _run(function: Callable[..., object], args: tuple[object, ...]) -> None:
    """Runs on: the new thread. If what it called made an event loop here, that ends with it."""
    try:
        function(*args)
    finally:
        hub: Any = get_hub_if_exists()
        if hub is not None:
            hub.destroy(destroy_loop=True)


def can_wait() -> bool:
    """Whether the caller is a greenlet of the main event loop, and not the hub itself, where nothing may wait."""
    return is_loop_thread() and getcurrent() is not gevent.get_hub()


def is_loop_thread() -> bool:
    return get_thread_ident() == LOOP_THREAD


class ThreadRecord(Record):
    """A request's record in a thread that is no greenlet: what waits there can neither be ended nor explained from our
    hub. It follows the request's budget, as far as a thread can: its waits ask for it from time to time.

    Once its time was up (see `has_ended`) or the request is over, it is free.
    """

    __slots__ = ("has_ended", "is_given_up", "request")

    def __init__(self, request: Record) -> None:
        self.request = request
        self.has_ended = False
        self.is_given_up = False  # the greenlet that asked does not wait for this call any more
        Record.__init__(self, request.arrived, id=request.id, environ=request.environ)
        self.greenlet = None

    @property
    def deadline(self) -> float:
        if self.has_ended:
            return FOREVER
        return 0.0 if self.is_given_up else self.request.deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        """Do nothing: the deadline is the request's."""

    def _change(self, deadline: float) -> None:
        self.request._change(deadline)

    def why(self) -> str:
        return self.request.why()

    def left_seconds(self, shield: int) -> float:
        return FOREVER if shield == UNBOUNDED else self.remaining_seconds()


def own_record() -> ThreadRecord | None:
    """Give the context of a call for another thread a record of its own. Runs in that context."""
    record = CURRENT.get()
    if record is None:
        return None
    own = ThreadRecord(record.request if isinstance(record, ThreadRecord) else record)
    CURRENT.set(own)
    return own


class Pending:
    """Something that another OS thread brings; any number of greenlets may wait for it."""

    def __init__(self) -> None:
        self.is_done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._events: set[Event] = set()

    def wait(self, kind: Kind, detail: str, seconds: float | None) -> bool:
        """True when it has come; False when the time was up. Raises BudgetSpent when the request has ended.

        Runs on: request greenlet; switches.
        """
        if not self.is_done and seconds != 0:
            event = Event()
            self._events.add(event)
            try:
                with Wait(kind, detail, OWN):
                    event.wait(seconds)
            finally:
                self._events.discard(event)
        return self.is_done

    def is_awaited(self) -> bool:
        return bool(self._events)

    def result(self) -> Any:
        """Return the job's result; raises its error with the traceback from there."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                del self  # its error's traceback would refer to it
        return self.value

    def arrive(self) -> None:
        """Runs on: hub."""
        self.is_done = True
        for event in self._events:
            event.set()


class Returns:
    """The way from real threads back into the event loop."""

    def __init__(self) -> None:
        self._arrived: deque[Callable[[], None]] = deque()
        self._expected = 0
        self._watcher: Any = None

    def expect(self) -> None:
        """Something will be posted: until then the loop has a reason to go on. Runs on: the loop's thread."""
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.async_()
        if not self._expected:
            self._watcher.start(self._deliver)
        self._expected += 1

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the hub. Runs on: any thread."""
        self._arrived.append(callback)
        self._watcher.send()

    def _deliver(self) -> None:
        while self._arrived:
            callback = self._arrived.popleft()
            self._expected -= 1
            if not self._expected:
                self._watcher.stop()
            callback()


class Job(Pending):
    """A call for a thread. `group`: whose it is, see Threads; `landed` is called in the hub before anybody goes on."""

    def __init__(self, function: Callable[[], object], group: str, landed: Callable[["Job"], None] | None) -> None:
        super().__init__()
        self.function = function
        self.group = group
        self.landed = landed
        self.started = FOREVER

    def arrive(self) -> None:
        if self.landed is not None:
            self.landed(self)
        super().arrive()


class Threads:
    """Threads of one purpose, started when they are needed.

    At most `limit` calls run at the same time. One that has run for `slow_seconds` no longer counts, so that slow
    calls don't keep out quick ones; all in all there are never more than `hard_limit`, and never more than
    `group_limit` of one group.
    """

    def __init__(
        self,
        limit: int,
        *,
        slow_seconds: float = FOREVER,
        hard_limit: int | None = None,
        group_limit: int | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.limit = limit
        self.slow_seconds = slow_seconds
        self.hard_limit = hard_limit or limit
        self.group_limit = group_limit or self.hard_limit
        self.now = now
        self._begin()

    def _begin(self) -> None:
        self.pid = os.getpid()
        self.waiting: deque[Job] = deque()
        self.running: set[Job] = set()
        self.idle_threads = 0
        self._tasks: SimpleQueue[Job | None] = SimpleQueue()
        self._returns = Returns()
        self._timer: Timer | None = None

    def submit(
        self, function: Callable[[], object], group: str = "", landed: Callable[[Job], None] | None = None
    ) -> Job:
        """Runs on: the loop's thread; never switches."""
        if self.pid != os.getpid():
            self._begin()  # forked: the threads stayed behind
        job = Job(function, group, landed)
        self.waiting.append(job)
        self._hand_out()
        return job

    def withdraw(self, job: Job) -> bool:
        """Nobody wants `job`'s answer: it is not begun if it has not been. Returns whether it was still in line."""
        is_in_line = job in self.waiting
        if is_in_line:
            self.waiting.remove(job)
        return is_in_line

    def _hand_out(self) -> None:
        while (job := self._next()) is not None:
            self.waiting.remove(job)
            job.started = self.now()
            self._returns.expect()
            self.running.add(job)
            if self.idle_threads:
                self.idle_threads -= 1
            else:
                start_thread(self._work, (self._tasks, self._returns))
            self._tasks.put(job)
        if self.waiting and self.slow_seconds != FOREVER:
            self._look_again()

    def _next(self) -> Job | None:
        if not self.waiting or len(self.running) >= self.hard_limit:
            return None
        slow_since = self.now() - self.slow_seconds
        if sum(job.started > slow_since for job in self.running) >= self.limit:
            return None
        groups = [job.group for job in self.running] if self.group_limit < self.hard_limit else []
        return next((job for job in self.waiting if groups.count(job.group) < self.group_limit), None)

    def _look_again(self) -> None:
        """Some of what runs may count as slow soon; then there is room for what waits."""
        if self._timer is None:
            self._timer = Timer(gevent.get_hub().loop, self.slow_seconds, "slow jobs")
        if not self._timer.active:
            self._timer.start(self._hand_out)

    def _work(self, tasks: "SimpleQueue[Job | None]", returns: Returns) -> None:
        """Runs on: a thread of ours."""
        while (job := tasks.get()) is not None:
            try:
                job.value = job.function()
            except BaseException as exc:  # whatever it is, it is for the one who asked
                job.error = exc
            returns.post(_Finished(self, job))
            del job

    def finished(self, job: Job) -> None:
        """Runs on: hub."""
        self.running.discard(job)
        if self.idle_threads < self.limit:
            self.idle_threads += 1
        else:
            self._tasks.put(None)
        job.arrive()
        self._hand_out()


class _Finished:
    """A call of Threads.finished; unlike a lambda it does not hold the thread's variables."""

    __slots__ = ("job", "threads")

    def __init__(self, threads: Threads, job: Job) -> None:
        self.threads = threads
        self.job = job

    def __call__(self) -> None:
        self.threads.finished(self.job)


@part("threads")
def install(put: Put) -> None:
    """Let sockets that were opened by greenlets be used in real threads, too: clients and pools are shared by all.

    A socket's watchers belong to the event loop of the thread that opened it, and memory is corrupted when another one
    touches them. Private to gevent: that its sockets, TLS ones included, wait in `_wait`. A test holds it fast.
    Runs on: the main thread, after patching.
    """
    green: Any = gevent.socket.socket
    if real_poll is None:
        raise Declined("this system has no poll()")
    put(green, "_wait", socket_wait(green._wait))
    sockets: Any = importlib.import_module("gevent._socket3")
    put(sockets, "get_hub", hub_of_sockets(sockets.get_hub))
    put(gevent.hub.Hub, "__init__", hub_init(gevent.hub.Hub.__init__))


def hub_of_sockets(plain: Callable[[], Any]) -> Callable[[], Any]:
    """A socket that a real thread opens has the watchers that it would have from a greenlet, whoever uses it later.

    They do nothing until a greenlet waits. Else each such thread would make an event loop, which nobody runs: a
    greenlet that is given the socket would wait for ever, and what gevent writes into the loop's memory when that has
    been freed can end the process.
    """

    def get_hub() -> Any:
        hub = loops_hub[0]
        if is_loop_thread() or hub is None or hub.loop is None:
            return plain()
        return hub

    return get_hub


def hub_init(plain: Callable[..., None]) -> Callable[..., None]:
    """What a real thread does may make an event loop there, and libev ends the process when it has no descriptors for
    it: then that fails with an error."""

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not is_loop_thread():
            raise_without_descriptors()
        plain(self, *args, **kwargs)

    return init


def raise_without_descriptors() -> None:
    """Raises OSError where fewer are left than an event loop takes."""
    held: list[int] = []
    try:
        for _ in range(LOOP_DESCRIPTORS):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for descriptor in held:
            real_close(descriptor)


def socket_wait(plain: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(plain)
    def wait(self: Any, watcher: Any, timeout_exc: Any = None) -> None:
        if get_thread_ident() == LOOP_THREAD:
            plain(self, watcher, timeout_exc)
        else:
            wait_in_thread(self, select.POLLIN if watcher is self._read_event else select.POLLOUT, timeout_exc)

    return wait


def wait_in_thread(sock: Any, events: int, timeout_exc: Any) -> None:
    """Block this thread until the socket is ready. Raises TimeoutError, or what the caller has for it."""
    if not polled({sock.fileno(): events}, sock.timeout):
        raise TimeoutError("timed out") if timeout_exc is None else timeout_exc
