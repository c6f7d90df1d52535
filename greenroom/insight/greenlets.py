"""Which lines start greenlets, and how many of theirs there are: what grows without end shows here.

Runs on: the loop's thread only. An object that another thread happens to let go of last would end there, and a watcher
of the loop must not.
"""

import gc
from collections import Counter
from typing import Any

import gevent

from . import stacks

MOST_SPAWNERS = 20
# Looking at more objects than this takes long enough to be a stall.
MOST_OBJECTS = 300_000


def by_spawner(most: int = MOST_SPAWNERS) -> dict[str, int]:
    """How many greenlets live, by the line that started them, most first; empty where looking would take too long."""
    objects = gc.get_objects()
    if len(objects) > MOST_OBJECTS:
        return {}
    counts: Counter[str] = Counter()
    for one in objects:
        if isinstance(one, gevent.Greenlet) and not one.dead:
            counts[_spawner(one)] += 1
    return dict(counts.most_common(most))


def _spawner(greenlet: Any) -> str:
    frame = getattr(greenlet, "spawning_stack", None)
    while frame is not None:
        file = frame.f_code.co_filename
        if not stacks.is_installed(file):
            return f"{stacks.shortened(file)}:{frame.f_lineno}"
        frame = frame.f_back
    run = getattr(greenlet, "_run", None)
    return str(getattr(run, "__qualname__", None) or type(greenlet).__name__)
