"""Files and connections that ended requests leave open: the garbage collector is called before there are many.

A thread-local is a request's own here, because each request has a thread of its own (a greenlet). A connection that an
application keeps there is closed with the request, if nothing else refers to it; but the objects of most libraries
refer to each other (a sqlite3.Connection and its cache of statements, a client and its socket's reader), and such
objects wait for the collector. It comes rarely, while a process may have some thousand files, and a database a hundred
connections. So this counts the process's files, whatever they are and whoever opened them:

    files      all that are open, without the connections of clients and PER_REQUEST for each request in flight
    kept       files at the start, and after each collection of all that is garbage

When there are `step` more than `kept`, what is young is collected, and then all, if that did not help. What is left is
somebody's, a pool's say. If there was little garbage, `step` doubles, so that collecting in vain becomes rare.

psycopg2's connections are seen one by one, and earlier (waits/unclosed_connections).
"""

import errno
import gc
import logging
import os
import resource
import time
from collections import Counter
from collections.abc import Callable

import gevent

from .. import clock

logger = logging.getLogger("gunicorn.error")

FOLDER = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
FIRST_STEP = 16
YOUNG, ALL = 1, 2  # generations
# A request may have a connection to a database and one to somebody else.
PER_REQUEST = 2
# Neither counting nor collecting takes a larger share of the time.
COUNT_SHARE, COLLECT_SHARE = 1 / 200, 1 / 20
# The step is halved when nothing was collected for so long.
FORGET_SECONDS = 60.0
# Of the files that the process may have: the longest step.
LONGEST_STEP_RATIO = 1 / 4
# So many were garbage: it is no accident.
TOLD_AT = 32
ADVICE = (
    "requests leave files or connections open, and only the garbage collector closes them (%d so far; just now %s). "
    "Close them with the request, or keep connections in a pool: what is kept by thread (threading.local) is kept by "
    "request here"
)


class LeftFiles:
    """Runs on: hub, with each heartbeat; collects in a greenlet of its own, since destructors run there."""

    def __init__(
        self,
        count: Callable[[], int] | None = None,
        collect: Callable[[int], int] = gc.collect,
        now: Callable[[], float] = clock.now,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.count = count or open_files
        self.collect = collect
        self.now = now
        self.cpu = cpu  # which a busy machine does not make longer
        self.kept: int | None = None  # nothing has been counted
        self.step = FIRST_STEP
        self.most = most_files()
        self.most_step = max(FIRST_STEP, int(LONGEST_STEP_RATIO * self.most))
        self.garbage = 0  # since the worker's start
        self.is_told = self.is_collecting = False
        self._count_at = self._collect_at = 0.0
        self._calm_since = now()

    def look(self, clients: int, requests: int) -> None:
        """There are so many connections of clients, and so many requests in flight."""
        now = self.now()
        if now < self._count_at or self.is_collecting or not gc.isenabled():
            return
        began = self.cpu()
        expected = clients + PER_REQUEST * requests
        files = self._files() - expected
        self._count_at = now + (self.cpu() - began) / COUNT_SHARE
        if self.kept is None:
            self.kept = files
        if now - self._calm_since > FORGET_SECONDS:
            self.step, self._calm_since = max(FIRST_STEP, self.step // 2), now
            self.kept = min(self.kept, files)
        if files - self.kept >= self.step and now >= self._collect_at:
            self.is_collecting = True
            gevent.spawn(self._collect, expected, self.kept)

    def _files(self) -> int:
        try:
            return self.count()
        except OSError as exc:  # there is no descriptor left to count with, or there is no /proc
            return self.most if exc.errno in (errno.EMFILE, errno.ENFILE) else 0

    def _collect(self, expected: int, kept: int) -> None:
        try:
            self._collect_now(expected, kept)
        finally:
            self.is_collecting = False

    def _collect_now(self, expected: int, kept: int) -> None:
        names = Counter[str]() if self.is_told else open_names()
        began, before = self.cpu(), self._files()
        self.collect(YOUNG)
        after = self._files()
        if after - expected - kept >= self.step // 2:
            self.collect(ALL)
            after = self._files()
            if after < self.most:
                self.kept = after - expected
        self._calm_since = self.now()
        self._collect_at = self._calm_since + (self.cpu() - began) / COLLECT_SHARE
        if before - after < self.step // 2:
            self.step = min(2 * self.step, self.most_step)
            return
        self.step = FIRST_STEP
        self.garbage += before - after
        if self.garbage >= TOLD_AT and not self.is_told:
            self.is_told = True
            closed = (names - open_names()).most_common(3)
            logger.warning(ADVICE, self.garbage, ", ".join(f"{count} x {name}" for name, count in closed) or "-")


def open_files() -> int:
    """How many files this process has open. Raises OSError where nobody knows."""
    size = os.stat(FOLDER).st_size if FOLDER.startswith("/proc") else 0  # since Linux 6.2, and without a look at each
    return size or len(os.listdir(FOLDER))


def open_names() -> Counter[str]:
    """What is open: paths, and `socket`, `pipe` and the like without their numbers."""
    names = Counter[str]()
    try:
        numbers = os.listdir(FOLDER)
    except OSError:
        return names  # see _files
    for number in numbers:
        try:
            name = os.readlink(f"{FOLDER}/{number}")
        except OSError:
            continue  # closed meanwhile
        names[name if name.startswith("/") else name.partition(":")[0]] += 1
    return names


def most_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
