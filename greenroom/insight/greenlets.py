"""Which lines start greenlets, and how many of theirs there are: what grows without end shows here.

Greenlets of requests are known; the others are noted when they first run (see account), by reference: going through all
objects of the process would touch such as look things up in a database when they are touched.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

import gevent

from ..in_flight import CURRENT
from . import stacks

MOST_SPAWNERS = 20
MOST_GREENLETS = 100_000


class Others:
    """The greenlets of no request that have run and may still live. Runs on: the loop's thread."""

    def __init__(self) -> None:
        self.references: dict[int, weakref.ref[Any]] = {}

    def add(self, greenlet: Any) -> None:
        if len(self.references) < MOST_GREENLETS:
            self.references[id(greenlet)] = weakref.ref(greenlet)

    def alive(self) -> list[Any]:
        """And forget those that have ended: another one may come to have the same number."""
        found = [(number, reference()) for number, reference in self.references.items()]
        self.references = {number: self.references[number] for number, one in found if one is not None and not one.dead}
        return [one for number, one in found if number in self.references]


def record_of(greenlet: Any) -> Any:
    """Whatever its context says that it works for. None for one that has no frame of Python, at its end or in C.

    greenlet takes that one for another thread's, whose context it can't tell.
    """
    try:
        context = greenlet.gr_context
    except ValueError:
        return None
    return None if context is None else context.get(CURRENT)


def by_spawner(greenlets: Iterable[Any], most: int = MOST_SPAWNERS) -> dict[str, int]:
    """How many there are, by the line that started them, most first."""
    return dict(Counter(spawner_of(one) for one in greenlets).most_common(most))


def spawner_of(greenlet: object) -> str:
    """The line that started it, else the name of its function."""
    if not issubclass(type(greenlet), gevent.Greenlet):
        return type(greenlet).__name__
    frame = getattr(greenlet, "spawning_stack", None)
    while frame is not None:
        file = frame.f_code.co_filename
        if not stacks.is_installed_file(file):
            return f"{stacks.shortened(file)}:{frame.f_lineno}"
        frame = frame.f_back
    run = getattr(greenlet, "_run", None)
    if type(run) is MethodType:
        run = run.__func__
    return run.__qualname__ if type(run) is FunctionType else type(greenlet).__name__
