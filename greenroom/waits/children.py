"""Waiting for child processes in the event loop: each by a descriptor of its own (pidfd), no signal, no common reaper.

libev learns of its children by SIGCHLD and then reaps all that have ended, whoever started them, in the first loop of
the process only. So waiting in a thread or in a forked child fails there, an application that sets a handler for
SIGCHLD makes every wait hang, and exit codes of processes that somebody else waits for are lost. Here a watcher looks
at its own process and no other. gevent's fork, waitpid, posix_spawn and Popen all come through `Loop.child`.
"""

import os
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey
from gevent.libev import corecext

from .. import observing
from ..replacements import Declined, Put, part

real_waitpid: Callable[[int, int], tuple[int, int]] = monkey.get_original("os", "waitpid")

# Where there is no pidfd (descriptors ran out): ask this often.
ASK_SECONDS = 0.02
# The status of a child that somebody else has waited for: as subprocess has it, nobody can know.
UNKNOWN_STATUS = 0
MOST_REMEMBERED = 200


def is_possible() -> bool:
    """Whether this system has pidfds."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


@part("children")
def install(put: Put) -> None:
    """Have gevent's loops wait for children this way. Runs on: the main thread, before there is a loop."""
    settings: Any = gevent.config
    if settings.loop is not corecext.loop:
        raise Declined("gevent is set to another loop than libev's")
    if not is_possible():
        raise Declined("this system has no descriptors of processes (pidfd)")
    put(settings, "loop", Loop)


class Loop(corecext.loop):
    __module__ = corecext.__name__  # gevent.core takes its names from the module of the loop's class

    def child(self, pid: int, trace: int = 0, ref: bool = True) -> Any:
        """A watcher for the process `pid`; for any process (0), or for one that stops (`trace`), libev's."""
        if pid <= 0 or trace:
            return super().child(pid, trace, ref)
        return ChildWatcher(self, pid, ref)

    def install_sigchld(self) -> None:
        """Leave SIGCHLD alone: children are waited for by pidfd, and the signal is the application's."""

    @property
    def sig_pending(self) -> bool:
        """Have poll() of gevent.subprocess let the loop turn: else a caller that only polls learns of no end."""
        return True

    def __del__(self) -> None:
        """The loop of a thread goes with it. gevent frees its memory first and writes into it then."""
        if not self.default:
            self.destroy()


class ChildWatcher:
    """A watcher as gevent's are: `start(callback, *args)` calls once when the process has ended. Runs on: hub."""

    def __init__(self, loop: Any, pid: int, ref: bool = True) -> None:
        self.loop = loop
        self.pid = self.rpid = pid
        self.rstatus = UNKNOWN_STATUS
        self.ref = ref
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] | None = None
        self._watcher: Any = None
        self._pidfd = -1

    def start(self, callback: Callable[..., Any], *args: Any) -> None:
        self.callback, self.args = callback, args
        if self._watcher is not None:
            return
        watched.setdefault(self.pid, []).append(self)
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:  # no descriptor left, or the process is gone
            self._watcher = self.loop.timer(0.0, repeat=ASK_SECONDS, ref=self.ref)
        else:
            self._watcher = self.loop.io(self._pidfd, 1, ref=self.ref)
        self._watcher.start(self._look)

    def _look(self) -> None:
        try:
            pid, status = real_waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            status = UNKNOWN_STATUS
        else:
            if not pid:
                return
            if len(ended) >= MOST_REMEMBERED:
                del ended[next(iter(ended))]
            ended[pid] = status
        for watcher in list(watched.get(self.pid, ())):
            watcher._ended(status)

    def _ended(self, status: int) -> None:
        self.rstatus = status
        callback, args = self.callback, self.args or ()
        self.stop()
        if callback is not None:
            # Of another thread's loop, perhaps; and never in the middle of somebody's turn.
            self.loop.run_callback_threadsafe(callback, *args)

    def stop(self) -> None:
        self.callback = self.args = None
        if self._watcher is None:
            return
        self._watcher.stop()
        self._watcher.close()
        self._watcher = None
        if self._pidfd >= 0:
            real_close(self._pidfd)
            self._pidfd = -1
        others = [watcher for watcher in watched.pop(self.pid, []) if watcher is not self]
        if others:
            watched[self.pid] = others

    def close(self) -> None:
        self.stop()

    @property
    def active(self) -> bool:
        return self._watcher is not None

    @property
    def pending(self) -> bool:
        return False

    def __enter__(self) -> "ChildWatcher":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


real_close: Callable[[int], None] = monkey.get_original("os", "close")
watched: dict[int, list[ChildWatcher]] = {}
# With which status the last children ended that were reaped here.
ended: dict[int, int] = {}
observing.show(observing.ended_children, ended)


def wait_for_exit(pid: int, seconds: float | None = None) -> bool | None:
    """Wait until the child `pid` has ended, without reaping it; False when the time is up first.

    None where no descriptor is left to wait for it. Runs on: any greenlet; switches. Raises ProcessLookupError, and
    whatever ends the wait, which may be an OSError.
    """
    hub: Any = gevent.get_hub()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None
    try:
        with hub.loop.io(pidfd, 1) as ended:
            if seconds is None:
                hub.wait(ended)
                return True
            over: Any = gevent.Timeout(max(seconds, 0.0), False)  # type: ignore[arg-type]  # ends quietly
            with over:
                hub.wait(ended)
                return True
            return False
    finally:
        real_close(pidfd)
