"""Sleep, sockets, select, subprocesses: each wait is named, and times out as its callers know it."""

import functools
import logging
import select
import subprocess
import time
from collections.abc import Callable
from typing import Any

import gevent.select
import gevent.selectors
import gevent.socket

from ... import deadline
from ...errors import BudgetSpent
from ...record import CURRENT, Wait
from .clean_up import shield_methods
from .hub import raise_if_spent


def install() -> None:
    """Runs on: the main thread, after patching."""
    if hasattr(time.sleep, "__wrapped__"):
        return
    time.sleep = sleep(time.sleep)  # type: ignore[assignment]
    # gevent's sockets, TLS ones included, wait in this method. Private to gevent; a test holds it fast.
    green: Any = gevent.socket.socket
    green._wait = socket_wait(green._wait)
    gevent.select.select = select.select = nothing_ready(select.select, ([], [], []), timeout_at=3)
    poll: Any = gevent.select.poll
    poll.poll = nothing_ready(poll.poll, [], timeout_at=1)
    selector: Any = gevent.selectors.GeventSelector
    selector.select = nothing_ready(selector.select, [], timeout_at=1)
    process: Any = subprocess.Popen
    process.__init__ = begun_whole(process.__init__)
    process.wait = process_wait(process.wait)
    process.communicate = process_wait(process.communicate)
    process.__exit__ = process_wait(process.__exit__)
    # There is the most to say when the budget is spent.
    shield_methods(logging.Handler, ("handle",))


def sleep(plain: Callable[[float], None]) -> Callable[[float], None]:
    @functools.wraps(plain)
    def sleep(seconds: float) -> None:
        if CURRENT.get() is None:
            plain(seconds)
        else:
            with Wait("sleep"):
                plain(seconds)

    return sleep


def socket_wait(plain: Callable[..., None]) -> Callable[..., None]:
    """A socket's wait, named by where it leads to."""

    def wait(self: Any, watcher: Any, timeout_exc: Any = None) -> None:
        if CURRENT.get() is None:
            plain(self, watcher, timeout_exc)
        else:
            with Wait("upstream", peer_name(self)):
                plain(self, watcher, timeout_exc)

    return wait


def peer_name(sock: Any) -> str:
    """`host:port`, a path, or "" while it leads nowhere."""
    try:
        peer = sock._sock.getpeername()
    except OSError:
        return ""
    return f"{peer[0]}:{peer[1]}" if type(peer) is tuple else str(peer)


def nothing_ready(plain: Callable[..., Any], nothing: Any, *, timeout_at: int) -> Callable[..., Any]:
    """A call that returns `nothing` when its timeout, the argument `timeout_at`, is over."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return plain(*args, **kwargs)
        timeout = args[timeout_at] if len(args) > timeout_at else kwargs.get("timeout")
        if timeout is None or timeout < 0:
            with Wait("other", plain.__name__):
                return plain(*args, **kwargs)
        raise_if_spent()
        try:
            with Wait("other", plain.__name__):
                return plain(*args, **kwargs)
        except BudgetSpent:
            return nothing

    return call


def process_wait(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Popen.wait, communicate, and the end of `with Popen()`."""

    @functools.wraps(plain)
    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None:
            return plain(self, *args, **kwargs)
        left = deadline.remaining_seconds()
        try:
            with Wait("other", "subprocess"):
                return plain(self, *args, **kwargs)
        except BudgetSpent as exc:
            raise subprocess.TimeoutExpired(self.args, left) from exc

    return wait


def begun_whole(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Starting a process: not at all when the budget is spent, else without being interrupted half-way."""

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if CURRENT.get() is None:
            plain(self, *args, **kwargs)
            return
        raise_if_spent()
        with deadline.unbounded():
            plain(self, *args, **kwargs)

    return init
