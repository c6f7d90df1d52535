"""Looking at the main thread, where all greenlets run, only at moments at which nothing can change under the look.

A reader of the frames of a running thread reads memory that is being let go: with greenlets, which switch and end
meanwhile, the process dies of SIGSEGV. So no thread looks at another one's frames. There are three sound ways, for the
three things that the main thread can be doing:

    it runs Python               it is asked to look at itself, between two instructions: `trip`, `ask`
    C code, without the GIL      whoever has the GIL keeps it from coming back, for the length of one C call that
                                 writes down all stacks: `stack_in_c`
    C code, with the GIL         it writes its own stack from within a signal handler: see alarm.Dump

To be asked, the main thread has a handler for SIGURG: a signal that nobody sends by accident, that harms nobody when it
comes too late, and that hardly any program uses; where one does, it is left to it. No signal is sent to the main
thread: Python is told as if one had come (`_thread.interrupt_main`), so no system call of anybody's C code is
interrupted.
"""

import _thread
import faulthandler
import os
import re
import signal
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from gevent import monkey

from . import stacks

NUMBER: Any = getattr(signal, "SIGURG", 0)
ANSWER_SECONDS = 0.25
LONGEST_DUMP_BYTES = 1_000_000
Answer = TypeVar("Answer")

_new_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
_THREAD = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)\b.*\(most recent call first\):")


class Question:
    """A function for the main thread, and who waits for what it returns."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.answer: Any = None
        self.answered = _new_lock()
        self.answered.acquire()


class SafePoint:
    """`on_passing(frame)` is called in the main thread after `trip`, with its innermost frame. It must be quick."""

    def __init__(self) -> None:
        self.on_passing: Callable[[Any], None] | None = None
        self.failures = 0
        self.is_here = False
        self._questions: deque[Question] = deque()
        self._loop: Any = None
        self._pid = 0

    def install(self) -> bool:
        """Whether the main thread can be asked from now on. Runs on: the main thread, in the process that is asked."""
        if self._pid != os.getpid():
            self._questions.clear()
            self._loop = gevent.get_hub().loop
        if NUMBER and signal.getsignal(NUMBER) is signal.SIG_DFL:
            signal.signal(NUMBER, self._pass)
        self._pid = os.getpid()
        return self.is_installed()

    def is_installed(self) -> bool:
        """Whether the signal is still ours. Runs on: any thread."""
        return bool(NUMBER) and self._pid == os.getpid() and signal.getsignal(NUMBER) == self._pass

    def trip(self) -> bool:
        """Have the main thread pass a safe point soon, if it runs Python. Runs on: any other thread."""
        if self.is_here or not self.is_installed():
            return False
        _thread.interrupt_main(NUMBER)
        return True

    def ask(self, function: Callable[[Any], Answer], seconds: float = ANSWER_SECONDS) -> Answer | None:
        """Return the result of `function(frame)` in the main thread; None if that has no time for it, or it failed.

        `frame` is its innermost one, None if its loop idles. Runs on: any other real thread, which it blocks.
        """
        question = Question(function)
        self._questions.append(question)
        self.trip()
        if self._loop is not None:
            self._loop.run_callback_threadsafe(self._answer, None)  # it may idle, and then runs no Python
        if question.answered.acquire(timeout=seconds):
            answer: Answer | None = question.answer
            return answer
        return None

    def _pass(self, number: int, frame: Any) -> None:
        """Runs on: the main thread, wherever it is. Must not raise, nor wait."""
        if self.is_here:
            return
        self.is_here = True
        try:
            while frame is not None and frame.f_code is _HANDLER:
                frame = frame.f_back  # a second signal came as the handling of the first began or ended
            if self.on_passing is not None:
                self.on_passing(frame)
            self._answer(frame)
        except Exception:
            # Raised here it would come out of a line that has nothing to do with it. The snapshot counts it.
            self.failures += 1
        finally:
            self.is_here = False

    def _answer(self, frame: Any) -> None:
        while self._questions:
            question = self._questions.popleft()
            try:
                question.answer = question.function(frame)
            except Exception:
                self.failures += 1
            question.answered.release()


_HANDLER = SafePoint._pass.__code__
MAIN = SafePoint()


def stack_in_c(thread_id: int) -> stacks.Stack:
    """The stack of a thread that is in C code without the GIL, or waits for it; empty if it can't be told.

    One C call, which keeps the GIL: none of the frames that it reads can change meanwhile.
    Runs on: any other thread.
    """
    try:
        file = os.memfd_create("stacks", os.MFD_CLOEXEC)
    except (OSError, AttributeError):  # no descriptors left; not Linux
        return []
    try:
        faulthandler.dump_traceback(file, all_threads=True)
        return of_thread(os.pread(file, LONGEST_DUMP_BYTES, 0).decode("utf-8", "replace"), thread_id)
    finally:
        os.close(file)


def of_thread(text: str, thread_id: int) -> stacks.Stack:
    """One thread's stack, out of what faulthandler wrote of all."""
    stack: stacks.Stack = []
    is_it = False
    for line in text.splitlines():
        if head := _THREAD.fullmatch(line):
            is_it = int(head[1], 16) == thread_id
        elif is_it and (call := stacks.of_dump_line(line)) is not None:
            stack.append(call)
    return stack
