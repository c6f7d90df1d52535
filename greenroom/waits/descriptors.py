"""os.read, os.write, os.fdopen, fcntl.flock and fcntl.lockf: where they would block, they wait in the event loop.

gevent leaves them as they are: a greenlet that reads a pipe stops its whole process, for ever when the one that would
write is a greenlet as well. A descriptor that is ready, as those of regular files always are, or that does not block is
used as ever. A lock of a file is asked for again and again: only a thread could wait for one, and it could not be told
that nobody wants the lock any more.
"""

import fcntl
import functools
import io
import os
import select
import stat
from collections.abc import Callable
from typing import Any

import gevent

from ..in_flight import OWN, Wait
from ..replacements import Put, part
from .giving_way import before_more, moved
from .polling import READ, WRITE
from .subprocesses import Pipe, is_ready, wait_in_loop
from .threads import can_wait

# How soon a lock that somebody else has is asked for again: first, and at the most.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.0005, 0.02
plain_read, plain_write, plain_fdopen = os.read, os.write, os.fdopen


@part("descriptors")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching. Safe to call again."""
    put(os, "read", functools.wraps(plain_read)(read))
    put(os, "write", functools.wraps(plain_write)(write))
    put(os, "fdopen", functools.wraps(plain_fdopen)(fdopen))
    for name in ("flock", "lockf"):
        put(fcntl, name, patient(getattr(fcntl, name)))


def read(fd: Any, length: Any, /) -> bytes:
    if type(fd) is not int or not can_wait():
        return plain_read(fd, length)
    before_more()
    if not is_ready(fd, READ) and blocks(fd, os.O_WRONLY):
        with Wait("other", "os.read"):
            wait_in_loop(fd, READ)
    data = plain_read(fd, length)
    moved(len(data))
    return data


def write(fd: Any, data: Any, /) -> int:
    if type(fd) is not int or not can_wait():
        return plain_write(fd, data)
    size = memoryview(data).nbytes
    if size > select.PIPE_BUF and blocks(fd, os.O_RDONLY) and not stat.S_ISREG(os.fstat(fd).st_mode):
        return write_in_parts(fd, data)
    if not is_ready(fd, WRITE) and blocks(fd, os.O_RDONLY):
        with Wait("other", "os.write"):
            wait_in_loop(fd, WRITE)
    return plain_write(fd, data)


def blocks(fd: int, refused: int) -> bool:
    """Whether the call would block. One that is opened for the other direction only is never ready: it is an error."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    return not flags & os.O_NONBLOCK and flags & os.O_ACCMODE != refused


def write_in_parts(fd: int, data: Any) -> int:
    """All of it, as a write that blocks does it; an error after the first part is the next write's."""
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        before_more()
        moved(select.PIPE_BUF)
        if not is_ready(fd, WRITE):
            with Wait("other", "os.write"):
                wait_in_loop(fd, WRITE)
        try:
            # A pipe that is ready takes so much without blocking.
            done += plain_write(fd, view[done : done + select.PIPE_BUF])
        except OSError:
            if not done:
                raise
            break
    return done


def fdopen(fd: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Over the end of a pipe, a file that waits in the loop: as subprocess's do."""
    kind = mode.replace("b", "").replace("t", "")
    if type(fd) is not int or kind not in ("r", "w") or not can_wait() or not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return plain_fdopen(fd, mode, buffering, encoding, *args, **kwargs)
    is_text = "b" not in mode
    if is_text and buffering == 0:
        raise ValueError("can't have unbuffered text I/O")
    closefd = args[2] if len(args) > 2 else kwargs.get("closefd", True)
    raw = Pipe(fd, kind, closefd=closefd)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    file: Any = io.BufferedReader(raw, size) if kind == "r" else io.BufferedWriter(raw, size)
    if not is_text:
        return file
    errors = args[0] if args else kwargs.get("errors")
    newline = args[1] if len(args) > 1 else kwargs.get("newline")
    text: Any = io.TextIOWrapper(file, io.text_encoding(encoding), errors, newline, line_buffering=buffering == 1)
    text.mode = mode
    return text


def patient(plain: Callable[..., Any]) -> Callable[..., Any]:
    """flock and lockf. The end of a request ends the wait: it has nothing yet."""

    @functools.wraps(plain)
    def lock(fd: Any, operation: int, *args: Any) -> Any:
        if operation & (fcntl.LOCK_NB | fcntl.LOCK_UN) or not can_wait():
            return plain(fd, operation, *args)
        try:
            return plain(fd, operation | fcntl.LOCK_NB, *args)
        except (BlockingIOError, PermissionError):
            pass  # somebody else has it
        pause = FIRST_PAUSE_SECONDS
        with Wait("lock", plain.__name__, OWN):
            while True:
                gevent.sleep(pause)
                try:
                    return plain(fd, operation | fcntl.LOCK_NB, *args)
                except (BlockingIOError, PermissionError):
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    return lock
