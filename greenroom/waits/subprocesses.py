"""CPython's own `subprocess`, whose waits are in the event loop.

gevent's Popen forks and goes on in Python until it executes the program: hooks of `os.register_at_fork` (OpenTelemetry,
loggers) run in that child and may fork or wait there, and what CPython added since it was written is missing. So
CPython's module is left as it is: it starts programs in C (vfork, no Python in between, unless `preexec_fn` asks for
it). So is `os.posix_spawn`, which it prefers from 3.13 on: gevent's has a watcher that reaps the process, and for
poll(), which asks the system, the exit code would be 0 whatever it was. The waits are replaced, in three places:

    Popen._wait               the end of the process: by a pidfd, see children
    subprocess.io.open        what makes the pipes' file objects: `Pipe` waits for a pipe before it reads or writes
    subprocess._PopenSelector communicate() with several pipes: a selector that waits in the loop
"""

import io
import os
import select
import subprocess
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import gevent
import gevent.selectors
from gevent import monkey

from ..replacements import Declined, Put, part
from . import children, closing
from .giving_way import before_more, moved
from .polling import READ, WRITE, events_of, polled, real_poll
from .real_threads import otherwise, select_registered
from .threads import can_wait

# CPython's words.
ONE_IS_NO_SIZE = "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used"
# For waits without a timeout where there is no pidfd: then CPython asks again and again.
VERY_LONG_SECONDS = 1e9

real_popen: Any = monkey.get_original("subprocess", "Popen")
plain_wait: Callable[[Any, float | None], int] = real_popen._wait


@part("subprocesses")
def install(put: Put) -> None:
    """Take gevent's replacement out again, and wait in CPython's own. Runs on: the main thread, after patching."""
    if not children.is_possible() or real_poll is None:
        raise Declined("this system has no descriptors of processes (pidfd)")
    closing.replace(put)  # it closes an end of a pipe, and reads the other at once
    module: Any = subprocess
    state: Any = monkey
    for name, plain in state.saved.get("subprocess", {}).items():
        put(module, name, plain)
    for name in ("posix_spawn", "posix_spawnp"):
        put(os, name, monkey.get_original("os", name))
    put(real_popen, "_wait", wait)
    put(module, "io", GreenIO("io"))
    put(module, "_PopenSelector", PipeSelector)


def wait(self: Any, timeout: float | None) -> int:
    """Popen._wait. Returns the exit code; raises TimeoutExpired."""
    if self.returncode is not None or not can_wait():
        return plain_wait(self, timeout)
    try:
        has_ended = children.wait_for_exit(self.pid, timeout)
    except ProcessLookupError:
        return plain_wait(self, timeout)  # somebody else has waited for it
    if has_ended is None:
        return plain_wait(self, VERY_LONG_SECONDS if timeout is None else timeout)
    if not has_ended:
        raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
    return plain_wait(self, timeout)


def wait_for(descriptor: int, event: int) -> bool:
    """Wait in the loop until a descriptor that blocks would not; False where the caller may block. Switches."""
    if not can_wait():
        return False
    if not is_ready(descriptor, event):
        wait_in_loop(descriptor, event)
    return True


def is_ready(descriptor: int, event: int) -> bool:
    """Whether a read or a write would return at once, with an error perhaps. Regular files always are."""
    return bool(polled({descriptor: events_of(event)}, 0))


def wait_in_loop(descriptor: int, event: int) -> None:
    """Runs on: any greenlet; switches."""
    hub: Any = gevent.get_hub()
    with hub.loop.io(descriptor, event) as ready:
        hub.wait(ready)


class GreenIO(ModuleType):
    """The module `io`, as subprocess sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(io, name)

    @staticmethod
    def open(file: int, mode: str, buffering: int = -1) -> Any:
        raw = Pipe(file, mode)
        if buffering == 0:
            return raw
        if buffering == 1:
            warnings.warn(ONE_IS_NO_SIZE, RuntimeWarning, stacklevel=3)
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        return io.BufferedReader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)


class PipeSelector(gevent.selectors.GeventSelector):
    """The selector of communicate(). Unchanged: that wait is named and bounded already, as the process's."""

    select = otherwise(select_registered, gevent.selectors.GeventSelector.select)


class Pipe(io.FileIO):
    """One end of a pipe. It blocks, as subprocess's do, for whoever uses its number; this object waits in the loop."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        before_more()
        wait_for(self.fileno(), READ)
        data = super().read(size) or b""
        moved(len(data))
        return data

    def readall(self) -> bytes:
        parts = []
        while part := self.read(io.DEFAULT_BUFFER_SIZE * 8):
            parts.append(part)
        return b"".join(parts)

    def readinto(self, buffer: Any, /) -> int:
        before_more()
        wait_for(self.fileno(), READ)
        size = super().readinto(buffer) or 0
        moved(size)
        return size

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            before_more()
            wait_for(self.fileno(), WRITE)
            moved(select.PIPE_BUF)
            # A pipe that is writable takes so much without blocking.
            done += super().write(view[done : done + select.PIPE_BUF])
        return done
