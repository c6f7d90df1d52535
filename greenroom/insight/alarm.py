"""Alarms: timers of the kernel that signal one thread, unless they are put off in time.

    Knock    Python is told to pass a safe point (see safepoint). While C code holds the GIL nobody else can say that;
             then it is passed at the very line that called the C code, when that is done, or in its midst where it
             lets signals in, as regular expressions do
    Dump     faulthandler writes the main thread's stack into a pipe, in C, while C code still holds the GIL

A Knock signals the watch thread: Python notes a signal in whatever thread it comes, and handles it in the main one.
So no system call of anybody's C code is interrupted.

A Dump has to signal the main thread itself, whose frames stand still while it is in a signal handler; but for the
moment in which greenlets are switched, when they are not what they seem. So it must come only when nothing can be
switching: it counts the processor time that the main thread uses. Before it goes off, a Knock has been due for long,
and had the main thread come out of its C code since then, it would have put the Dump off. After SIGSTOP, or where a
busy machine does not let the watch thread run, no such time passes. And code that waits in the kernel uses none: it is
not interrupted either.

Linux only; elsewhere there are no such timers, and making one raises OSError.
"""

import ctypes
import faulthandler
import os
import signal
import sys
from abc import ABC, abstractmethod
from typing import Any

from gevent import monkey

from . import safepoint

SIGEV_THREAD_ID = 4  # of linux/include/uapi/asm-generic/siginfo.h
CLOCK_MONOTONIC = 1
CLOCK_THREAD_CPUTIME_ID = 3
# More than `struct sigaction` has; it begins with the handler.
LARGEST_ACTION_BYTES = 512

native_id: Any = monkey.get_original("_thread", "get_native_id")


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
    """Goes off when not put off for `seconds` of `clock`, and then every `again_seconds`.

    Signals the thread that makes it, which is also the one whose processor time a clock counts.
    """

    number: int
    clock: int

    def __init__(self, seconds: float, again_seconds: float) -> None:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        if not hasattr(signal, "SIGRTMAX") or not hasattr(libc, "timer_create"):
            raise OSError("this system has no timers that signal one thread")
        self._libc = libc
        self._timer = ctypes.c_void_p()
        self._setting = ctypes.byref(_Setting(_time(again_seconds), _time(seconds)))
        event = _Event(signo=self.number, notify=SIGEV_THREAD_ID, thread_id=native_id())
        if libc.timer_create(self.clock, ctypes.byref(event), ctypes.byref(self._timer)):
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
    """Trips the main thread's safe point, which must be installed. Made by the watch thread."""

    number = safepoint.NUMBER
    clock = CLOCK_MONOTONIC

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, seconds)

    def let_go(self) -> None:
        """A signal that comes without a handler is ignored."""


class Dump(Alarm):
    """Has the main thread's stack written into the descriptor `file`. Made by the main thread."""

    number = getattr(signal, "SIGRTMAX", 0) - 2  # debuggers take the last one
    clock = CLOCK_THREAD_CPUTIME_ID

    def __init__(self, file: int, seconds: float, again_seconds: float) -> None:
        if signal.getsignal(self.number) is not signal.SIG_DFL:
            raise OSError(f"the application handles signal {self.number}")
        super().__init__(seconds, again_seconds)
        faulthandler.register(self.number, file=file, all_threads=False)
        self._handler = self._handler_now()

    def put_off(self) -> None:
        """And for good, if the application has taken the handler away: without one the signal would end the process."""
        if self._is_there and self._handler_now() != self._handler:
            self._is_there = False
            self._libc.timer_delete(self._timer)
        super().put_off()

    def _handler_now(self) -> int:
        action = ctypes.create_string_buffer(LARGEST_ACTION_BYTES)
        self._libc.sigaction(self.number, None, action)
        return int.from_bytes(action.raw[: ctypes.sizeof(ctypes.c_void_p)], sys.byteorder)

    def let_go(self) -> None:
        faulthandler.register(self.number, file=_nowhere(), all_threads=False)


_kept: list[int] = []


def _nowhere() -> int:
    """A descriptor that stays open as long as the process: a signal that nobody catches would end it."""
    if not _kept:
        _kept.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    return _kept[0]
