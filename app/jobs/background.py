"""A few threads that do jobs beside the requests of this process, where no Celery worker runs.

Queued work is lost if the process is killed; a normal exit waits for it, up to DRAIN_SECONDS.
"""

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask

logger = logging.getLogger(__name__)

THREADS = 4
LONGEST_QUEUE = 1000
# Less than gunicorn's graceful timeout of 30 s, after which a worker that still drains is killed.
DRAIN_SECONDS = 10.0

Work = tuple[str, Callable[..., object], Mapping[str, object]]


class TooManyJobs(RuntimeError):
    """The queue is full."""


class Background:
    """Does jobs on up to THREADS threads, started when there is something to do.

    Not a ThreadPoolExecutor: at exit that waits for everything queued, however long it takes.
    """

    def __init__(self, app: Flask, threads: int = THREADS, longest_queue: int = LONGEST_QUEUE) -> None:
        self.app = app
        self.threads = threads
        self.longest_queue = longest_queue
        self._pid = 0
        self._reset()

    def submit(self, name: str, job: Callable[..., object], values: Mapping[str, object]) -> None:
        """Have `job(**values)` done soon. Raises TooManyJobs when the queue is full.

        Runs on: any thread.
        """
        if self._pid != os.getpid():
            self._reset()  # forked since: the parent's threads and what it had queued stayed there
        with self._lock:
            if self._unfinished >= self.longest_queue:
                raise TooManyJobs(f"{self._unfinished} jobs are waiting")
            self._unfinished += 1
            self._work.put((name, job, values))
            if self._started < min(self.threads, self._unfinished):
                self._started += 1
                # Daemons, so that draining has a bound; atexit waits for them, see drain().
                threading.Thread(target=self._run, name=f"job-{self._started}", daemon=True).start()

    def drain(self, timeout_seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until every job is done; False when some are not by then, which is logged."""
        if self._pid != os.getpid():
            return True
        give_up_at = time.monotonic() + timeout_seconds
        with self._lock:
            while self._unfinished and (remaining := give_up_at - time.monotonic()) > 0:
                self._done.wait(remaining)
            if self._unfinished:
                logger.error(
                    "jobs given up at exit", extra={"jobs": self._unfinished, "timeout_seconds": timeout_seconds}
                )
            return self._unfinished == 0

    def _reset(self) -> None:
        if self._pid == 0:
            atexit.register(self.drain)
        self._pid = os.getpid()
        self._work: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._done = threading.Condition(self._lock)
        self._unfinished = 0
        self._started = 0

    def _run(self) -> None:
        while True:
            name, job, values = self._work.get()
            try:
                self._do(name, job, values)
            finally:
                with self._lock:
                    self._unfinished -= 1
                    self._done.notify_all()

    def _do(self, name: str, job: Callable[..., Any], values: Mapping[str, object]) -> None:
        try:
            with self.app.app_context():
                job(**values)
        except Exception:  # the thread must live on for the next job; the values are not logged, they may be secret
            logger.exception("job failed", extra={"job": name})
