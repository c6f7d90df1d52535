"""What would make an event loop in a real thread blocks that thread instead, as it does without patching.

gevent gives each thread that waits an event loop of its own. In a thread of the operating system that is a loop for one
waiter: eight descriptors, which libev ends the process without; and a hub whose thread ends before it is collected is
read by the garbage collector when greenlet has freed what it points to. So a thread that has no hub gets none by these:

    names                  libc's functions
    connect(), recv(), ... poll() of that descriptor (sockets' other waits: see threads)
    select, poll           the system's
    selectors              poll() of what is registered
    fork, posix_spawn      without a watcher of the new process (waiting for it: see programs)

A thread that runs greenlets of its own, since it called gevent, keeps gevent's functions.
"""

import _socket
import errno
import functools
import importlib
import os
import select
import selectors
from collections.abc import Callable
from typing import Any

import gevent.os
import gevent.select
import gevent.selectors
import gevent.socket
from gevent import _hub_local, monkey

from ..replacements import Declined, Put, part
from .giving_way import turn
from .polling import events_of, polled, poller_of, real_poll
from .threads import hub_of_sockets, is_loop_thread, loops_hub, wait_in_thread

real_select: Callable[..., Any] = monkey.get_original("select", "select")
# They watch the new process in no loop; its parent waits for it as for any other.
STARTS: dict[str, Callable[..., Any]] = {
    "fork": gevent.os.fork_gevent,
    "forkpty": gevent.os.forkpty_gevent,
    "posix_spawn": monkey.get_original("os", "posix_spawn"),
    "posix_spawnp": monkey.get_original("os", "posix_spawnp"),
}
# What select() takes; gevent's has no such limit.
SELECT_DESCRIPTORS = 1024
ON_THEIR_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK)


def blocks() -> bool:
    """Whether the caller is in a real thread without an event loop."""
    return not is_loop_thread() and _hub_local.get_hub_if_exists() is None


@part("threads")
def install(put: Put) -> None:
    """Private to gevent: where its modules take the hub from. A test in a real worker holds all of it fast.

    Runs on: the main thread, before the waits are named: a real thread's are, too.
    """
    if real_poll is None:
        raise Declined("this system has no poll()")
    sockets: Any = importlib.import_module("gevent._socketcommon")
    put(sockets, "get_hub", hub_of_names(sockets.get_hub))
    green: Any = gevent.socket.socket
    put(green, "connect", otherwise(connect, green.connect))
    put(green, "connect_ex", otherwise(connect_ex, green.connect_ex))
    for module in (gevent.select, gevent.selectors):
        put(module, "get_hub", hub_of_sockets(module.get_hub))
    chosen = otherwise(select_in_thread, select.select)
    for module in (gevent.select, select):
        put(module, "select", chosen)
    poll: Any = gevent.select.poll
    put(poll, "poll", otherwise(poll_in_thread, poll_in_loop(poll.poll)))
    selector: Any = gevent.selectors.GeventSelector
    put(selector, "select", otherwise(select_registered, selector.select))
    for name, blocking in STARTS.items():
        put(os, name, otherwise(blocking, getattr(os, name)))


def otherwise(blocking: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """`blocking` in a real thread, else `plain`."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        return blocking(*args, **kwargs) if blocks() else plain(*args, **kwargs)

    return call


class HubOfNames:
    """The part of a hub that functions about names ask of it. libc may block a real thread."""

    resolver = _socket

    @staticmethod
    def cancel_wait(*args: Any) -> None:
        """A socket's watchers are the main loop's."""
        loops_hub[0].cancel_wait(*args)


def hub_of_names(plain: Callable[[], Any]) -> Callable[[], Any]:
    of_thread = HubOfNames()

    def get_hub() -> Any:
        return of_thread if blocks() and loops_hub[0] is not None else plain()

    return get_hub


def connect(self: Any, address: Any) -> None:
    """socket.connect() of a green socket. Raises OSError."""
    if self.timeout == 0.0:
        self._sock.connect(address)
        return
    code = self._sock.connect_ex(address)
    if code in ON_THEIR_WAY:
        wait_in_thread(self, select.POLLOUT, None)
        code = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
    if code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))


def connect_ex(self: Any, address: Any) -> int:
    try:
        connect(self, address)
    except TimeoutError as exc:
        return exc.errno or errno.EAGAIN
    except _socket.gaierror:
        raise
    except OSError as exc:
        return exc.errno or 0
    return 0


def select_in_thread(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None) -> Any:
    try:
        return real_select(rlist, wlist, xlist, timeout)
    except ValueError:
        # A number above those that select() takes, or below zero, for which the next line raises again.
        if max(map(number_of, (*rlist, *wlist, *xlist)), default=0) < SELECT_DESCRIPTORS:
            raise
    asked = ((rlist, select.POLLIN | select.POLLHUP), (wlist, select.POLLOUT), (xlist, select.POLLPRI))
    events: dict[int, int] = {}
    for files, event in asked:
        for file in files:
            events[number_of(file)] = events.get(number_of(file), 0) | event
    found = dict(polled(events, timeout))
    errors = select.POLLERR | select.POLLNVAL
    return tuple([file for file in files if found.get(number_of(file), 0) & (event | errors)] for files, event in asked)


def number_of(file: Any) -> int:
    return file if isinstance(file, int) else int(file.fileno())


def poll_in_thread(self: Any, timeout: float | None = None) -> list[tuple[int, int]]:
    """select.poll.poll(), with a timeout in milliseconds."""
    return polled(registered(self), seconds_of(timeout))


def seconds_of(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else timeout / 1000


def registered(self: Any) -> dict[int, int]:
    return {descriptor: events_of(flags) for descriptor, flags in self.fds.items()}


def poll_in_loop(plain: Callable[..., list[tuple[int, int]]]) -> Callable[..., list[tuple[int, int]]]:
    """Return poll() for greenlets. gevent's own waits for a closed descriptor, and knows no POLLHUP and POLLERR:
    the system is asked before it, and once it has found something."""

    @functools.wraps(plain)
    def poll(self: Any, timeout: float | None = None) -> list[tuple[int, int]]:
        seconds = seconds_of(timeout)
        poller = poller_of(registered(self))
        found: list[tuple[int, int]] = poller.poll(0)
        if found or seconds == 0:
            # As gevent's does: a caller whose descriptors are always ready, or who looks again and again, would keep
            # the loop from everything else.
            turn()
        elif not (found := plain(self, timeout)):
            return []
        # A caller without a timeout is never told of nothing: others may have read meanwhile what it was woken for.
        return poller.poll(0) or found

    return poll


def select_registered(self: Any, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
    """A selector's select()."""
    keys = {key.fd: key for key in self.get_map().values()}
    ready = []
    for descriptor, event in polled({key.fd: events_of(key.events) for key in keys.values()}, timeout):
        key = keys[descriptor]
        found = selectors.EVENT_READ * bool(event & ~select.POLLOUT)
        found |= selectors.EVENT_WRITE * bool(event & ~select.POLLIN)
        if found & key.events:
            ready.append((key, found & key.events))
    return ready
