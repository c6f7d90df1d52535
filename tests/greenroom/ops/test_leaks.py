"""Threads, greenlets and child processes of which there are more and more."""

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from greenroom.ops import leaks as leaks_module
from greenroom.ops.leaks import Leaks, children_of, commonest


def looked_at(counts: Sequence[int], kind: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What is found of these numbers, one every two seconds."""
    times = iter(2.0 * number for number in range(len(counts)))
    leaks = Leaks(now=lambda: next(times))
    monkeypatch.setattr(leaks_module, "commonest", lambda children: "sleep")
    found: list[dict[str, object]] = []
    for count in counts:
        monkeypatch.setattr(leaks_module, "children_of", lambda pid, count=count: [0] * count * (kind == "children"))
        found = leaks.look([(7, 1, {"shop.py:9": count} if kind == "threads" else {})])
    return found


@pytest.mark.parametrize(("kind", "name"), [("threads", "shop.py:9"), ("children", "sleep")])
def test_what_grows_all_the_time_is_found(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked_at(range(100, 400, 30), kind, monkeypatch)

    assert found == [{"worker": 1, "kind": kind, "name": name, "count": 370, "grown": 270, "seconds": 18.0}]


@pytest.mark.parametrize("kind", ["threads", "children"])
@pytest.mark.parametrize(
    "counts",
    [
        [50, 200, *[400] * 8],  # warm by now
        [400, 100] * 5,
        range(100, 110),
        range(100, 400, 100),  # too short
    ],
)
def test_what_does_not_is_none(counts: Sequence[int], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_at(counts, kind, monkeypatch) == []


def test_children_of_this_process_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        children = children_of(os.getpid())
        if os.path.exists(f"/proc/self/task/{os.getpid()}/children"):  # not every kernel tells
            assert child.pid in children
            assert commonest([child.pid]).startswith("python")
        child.communicate(b"\n")
    assert child.pid not in children_of(os.getpid())
