"""Database connections that requests leave open, in objects that nobody refers to any more but they themselves.

A thread-local is a request's own here, because each request has a thread of its own (a greenlet). So an application
that keeps a connection for each thread (Django's CONN_MAX_AGE) opens one for each request. It is closed with the
request if nothing else refers to it; but libraries' objects refer to each other, and wait for the garbage collector,
which comes rarely, while PostgreSQL has room for a hundred. So it is called as soon as a few such connections are open;
the operator is told once, with the line. Connections that live on are somebody's, a pool's say, and not looked at
again.
"""

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import gevent
from greenlet import getcurrent

from .. import clock
from ..frames import Innermost, line_of
from ..insight import stacks
from .threads import is_loop_thread

logger = logging.getLogger(__name__)

# So many may be open that belong to threads that have ended.
MOST_LEFT = 4
# Collecting takes no larger share of the time. Objects from before the worker began to serve are not gone through.
SHARE = 1 / 5
# So many were garbage: it is no accident.
TOLD_AT = 8
ADVICE = (
    "each request opens a database connection and leaves it to the garbage collector (%s): what is kept by thread is "
    "kept by request here. Use a pool (SQLAlchemy's, Django's OPTIONS pool), or close it with the request "
    "(Django: CONN_MAX_AGE = 0)"
)


class LeftOpen:
    """Told of each connection that is opened. Runs on: any greenlet of the loop's thread."""

    def __init__(self, now: Callable[[], float] = clock.now, collect: Callable[[], int] = gc.collect) -> None:
        self.now = now
        self.collect = collect
        self.open: list[tuple[Any, Any]] = []  # connection and the thread that opened it, weakly
        self.next_at = 0.0
        self.garbage = 0
        self.is_told = self.is_looking = False
        self.place = ""
        self.application = Innermost(lambda frame: stacks.is_installed(frame.f_code.co_filename))

    def opened(self, connection: Any) -> None:
        if not is_loop_thread():
            return
        self.open = [one for one in self.open if _is_open(one[0])]
        self.open.append((weakref.ref(connection), weakref.ref(getcurrent())))
        if not self.is_told:
            frame = self.application.find()
            if frame is not None:
                self.place = f"{stacks.shortened(frame.f_code.co_filename)}:{line_of(frame.f_code, frame.f_lasti)}"
        if not self.is_looking and len(self._left()) >= MOST_LEFT:
            self.is_looking = True
            gevent.spawn(self._look)

    def _look(self) -> None:
        """Runs on: a greenlet of its own, since destructors run here."""
        try:
            gevent.sleep(max(0.0, self.next_at - self.now()))
            self.look()
        finally:
            self.is_looking = False

    def _left(self) -> list[tuple[Any, Any]]:
        return [one for one in self.open if _has_ended(one[1]) and _is_open(one[0])]

    def look(self) -> None:
        """Collect what is garbage; what still is there is kept by somebody."""
        left, began = self._left(), self.now()
        self.collect()
        self.next_at = self.now() + (self.now() - began) / SHARE
        self.garbage += sum(not _is_open(one[0]) for one in left)
        self.open = [one for one in self.open if one not in left]
        if self.garbage >= TOLD_AT and not self.is_told:
            self.is_told = True
            logger.warning(ADVICE, self.place or "by a library")


def _is_open(reference: Any) -> bool:
    connection = reference()
    return connection is not None and not connection.closed


def _has_ended(reference: Any) -> bool:
    greenlet = reference()
    return greenlet is None or bool(greenlet.dead)


left_open = LeftOpen()
