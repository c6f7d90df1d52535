"""A worker looks at its memory, and goes on where that can't be told."""

import errno
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from greenroom.worker.memory_limit import MemoryLimit


class World:
    """One worker's limit, with what it said and how often it was exceeded."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self.said: list[str] = []
        self.exceeded: list[int] = []
        self.line = SimpleNamespace(rss_bytes=0)
        log: Any = SimpleNamespace(warning=lambda text, *values: self.said.append(text % values))
        self.memory = MemoryLimit(4711, self.line, limit_bytes, self.exceeded.append, log)


@pytest.mark.parametrize(("limit", "rss", "exceeded"), [(0, 900, []), (500, 499, []), (500, 501, [501])])
def test_memory_over_the_limit_is_told(
    limit: int, rss: int, exceeded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(limit)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=rss))
    monkeypatch.setattr(psutil, "Process", lambda: process)

    world.memory.look()

    assert world.exceeded == exceeded
    assert world.line.rss_bytes == rss


@pytest.mark.parametrize("exc", [OSError(errno.EMFILE, "Too many open files"), psutil.NoSuchProcess(1)])
def test_worker_whose_memory_cannot_be_told_goes_on_and_says_so_once(
    exc: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise exc

    world = World()
    monkeypatch.setattr(psutil, "Process", fail)

    world.memory.look()
    world.memory.look()

    assert len(world.said) == 1
    assert "worker 4711" in world.said[0]
