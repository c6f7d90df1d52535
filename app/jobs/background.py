"""A few threads that do jobs beside the requests of this process, where no Celery worker runs.

Queued work is lost if the process is killed; a normal exit waits for it, up to DRAIN_SECONDS.
"""

import atexit
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping

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
            unfinished = self._work.unfinished_tasks
            if unfinished >= self.longest_queue:
                raise TooManyJobs(f"{unfinished} jobs are waiting")
            self._work.put((name, job, values))
            if self._started < min(self.threads, unfinished + 1):
                self._started += 1
                # Daemons, so that draining has a bound; atexit waits for them, see drain().
                threading.Thread(target=self._run, name=f"job-{self._started}", daemon=True).start()

    def drain(self, timeout_seconds: float = DRAIN_SECONDS) -> bool:
        """Wait until every job is done; False when some are not by then, which is logged."""
        if self._pid != os.getpid():
            return True
        with self._work.all_tasks_done:
            self._work.all_tasks_done.wait_for(lambda: self._work.unfinished_tasks == 0, timeout_seconds)
            unfinished = self._work.unfinished_tasks
        if unfinished:
            logger.error("jobs given up at exit", extra={"jobs": unfinished, "timeout_seconds": timeout_seconds})
        return unfinished == 0

    def _reset(self) -> None:
        if self._pid == 0:
            atexit.register(self.drain)
        self._pid = os.getpid()
        self._work: queue.Queue[Work] = queue.Queue()
        self._lock = threading.Lock()
        self._started = 0

    def _run(self) -> None:
        while True:
            name, job, values = self._work.get()
            try:
                with self.app.app_context():
                    job(**values)
            except Exception:  # the thread must live on for the next job; the values are not logged, they may be secret
                logger.exception("job failed", extra={"job": name})
            finally:
                self._work.task_done()
