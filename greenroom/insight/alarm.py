"""Alarms: timers of the kernel that signal one thread, unless they are put off in time.

    Knock    a Python function is called with the frame that the thread was in. While C code holds the GIL that waits
             for its end, and then it is the very line that called it: safe at any time
    Dump     faulthandler writes the thread's stack into a pipe, in C, without the GIL, while C code still holds it

faulthandler's own watchdog (`dump_traceback_later`) reads the frames of threads that may run: where it was merely late,
on a busy machine or after SIGCONT, it met frames that were being let go, and the process died of SIGSEGV (4 workers in
54 s of a fuzz run with a threshold of 20 ms). A Dump is made by the very thread, from within a signal handler, so its
frames stand still; only in the middle of a switch of greenlets they are not what they seem (once in some thousand of
dumps, when a program does nothing but switch). So it is for long stalls, in which nothing can be switching.

Linux only; elsewhere there are no such timers, and making one raises OSError.
"""

import ctypes
import faulthandler
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from gevent import monkey

SIGEV_THREAD_ID = 4  # of linux/include/uapi/asm-generic/siginfo.h
CLOCK_MONOTONIC = 1
# How faulthandler begins to write a single thread's stack.
DUMP_BEGIN = "Stack (most recent call first)"

_native_id: Any = monkey.get_original("_thread", "get_native_id")


class _Event(ctypes.Structure):
    """`struct sigevent`, 64 bytes."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread_id", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    ]


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Setting(ctypes.Structure):
    """`struct itimerspec`"""

    _fields_ = [("interval", _Time), ("value", _Time)]


def _time(seconds: float) -> _Time:
    whole = int(seconds)
    return _Time(whole, round((seconds - whole) * 1e9))


class Alarm(ABC):
    """Goes off when not put off for `seconds`, and then every `again_seconds`.

    Made in the thread that is to be signalled.
    """

    number: int

    def __init__(self, seconds: float, again_seconds: float) -> None:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        if not hasattr(signal, "SIGRTMAX") or not hasattr(libc, "timer_create"):
            raise OSError("this system has no timers that signal one thread")
        self._libc = libc
        self._timer = ctypes.c_void_p()
        self._setting = ctypes.byref(_Setting(_time(again_seconds), _time(seconds)))
        event = _Event(signo=self.number, notify=SIGEV_THREAD_ID, thread_id=_native_id())
        if libc.timer_create(CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._is_there = True

    def put_off(self) -> None:
        """Runs on: any thread."""
        if self._is_there:
            self._libc.timer_settime(self._timer, 0, self._setting, None)

    def stop(self) -> None:
        """It has gone off for the last time. A signal that is on its way is caught, and harms nobody."""
        if self._is_there:
            self._is_there = False
            self._libc.timer_delete(self._timer)
            self.let_go()

    @abstractmethod
    def let_go(self) -> None:
        """Catch the signal still, and do nothing."""


class Knock(Alarm):
    """Calls `called(frame)` in the main thread, which must make it."""

    number = getattr(signal, "SIGRTMAX", 0) - 3

    def __init__(self, called: Callable[[Any], None], seconds: float) -> None:
        super().__init__(seconds, seconds)
        signal.signal(self.number, lambda _, frame: called(frame))
        signal.siginterrupt(self.number, False)

    def let_go(self) -> None:
        signal.signal(self.number, signal.SIG_IGN)


class Dump(Alarm):
    """Has the stack written into the descriptor `file`."""

    number = getattr(signal, "SIGRTMAX", 0) - 2  # debuggers take the last one

    def __init__(self, file: int, seconds: float, again_seconds: float) -> None:
        super().__init__(seconds, again_seconds)
        faulthandler.register(self.number, file=file, all_threads=False)

    def let_go(self) -> None:
        faulthandler.register(self.number, file=_nowhere(), all_threads=False)


_kept: list[int] = []


def _nowhere() -> int:
    """A descriptor that stays open as long as the process: a signal that nobody catches would end it."""
    if not _kept:
        _kept.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    return _kept[0]
