"""The end of a worker's process: what Python does at exit is done with a living loop, within a bound, and named.

    drained ─> worker_exit hook ─> threading's exit functions ─> non-daemon threads are joined ─> atexit ─> gone
                                   (executors do what is queued)                        (exporters flush)

All of this is Python's and gunicorn's own. The loop turns meanwhile, so sockets, threads and locks work as ever. The
daemon threads and greenlets that requests left behind are not waited for, as Python does not wait for daemon threads.
Added here: who holds the exit is named in the log, and at the graceful timeout the process ends all the same.
"""

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import gevent
from greenlet import getcurrent

from .. import clock, forking, replacements
from ..slowing import place_of

CHECK_SECONDS = 0.1
# A holder of the exit for longer than this is named.
NAMED_AFTER_SECONDS = 1.0
MOST_NAMED = 5
# greenlet's words to whoever asks for the current one when the interpreter is being taken down: a lock in a __del__.
FINALIZED = "greenlet is being finalized"


class Leaving:
    """Watches over the exit of this process, which has to be over at `until`. Runs on: main greenlet."""

    def __init__(self, worker: Any, until: float, now: Callable[[], float] = clock.now) -> None:
        self.worker = worker
        self.until = until
        self.now = now
        self.main: Any = getcurrent()
        # gunicorn closes its own before the exit, but goes on looking at the file.
        self.heartbeat = os.dup(worker.tmp.fileno())

    def begin(self) -> None:
        # So that Python can take down the application, as it does under other workers, and with it write what is
        # buffered in its files: the loop, which nobody takes down, leads here.
        gc.unfreeze()
        self.worker.wsgi = self.worker.app.callable = None
        replacements.put("exit", (sys, "unraisablehook", _silent_when_finalized(sys.unraisablehook)))
        gevent.spawn(self._watch)

    def _watch(self) -> None:
        named_at = self.now() + NAMED_AFTER_SECONDS
        is_named = False
        while self.now() < self.until:
            moment = clock.now()
            os.utime(self.heartbeat, (moment, moment))  # as WorkerTmp.notify does
            if not is_named and self.now() >= named_at:
                is_named = True
                self.worker.log.info("Worker %s can't exit yet: it waits for %s", self.worker.pid, self.holders())
            gevent.sleep(CHECK_SECONDS)
        self.worker.log.warning("Worker %s exits without waiting for %s", self.worker.pid, self.holders())
        for processes in forking.multiprocessing_modules():
            for child in processes.active_children():
                child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def holders(self) -> str:
        """Name the things that the exit waits for, as far as they can be seen."""
        threads = [thread for thread in threading.enumerate() if not thread.daemon and thread is not _main_thread()]
        names = [_name(thread) for thread in threads[:MOST_NAMED]]
        if len(threads) > MOST_NAMED:
            names.append(f"{len(threads) - MOST_NAMED} more threads")
        return ", ".join(names) or place_of(self.main.gr_frame)


def _main_thread() -> threading.Thread:
    return threading.main_thread()


def _name(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    code = getattr(target, "__code__", None)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno} in {code.co_qualname})"
    return f"thread {thread.name!r}{place}, which is not a daemon"


def _silent_when_finalized(plain: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """For sys.unraisablehook: nobody can do anything about a lock that is asked for in a __del__ at the very end."""

    def hook(unraisable: Any, finalized: str = FINALIZED) -> None:  # globals are gone by then
        exc = unraisable.exc_value
        if not (isinstance(exc, RuntimeError) and str(exc) == finalized):
            plain(unraisable)

    return hook
