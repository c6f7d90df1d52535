"""Executors that were full while many asked."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from .driving import WAITING_SHARE, Seen
from .findings import Finding
from .reading.project import Project


def full(seen: Seen, project: Project, static: Sequence[Finding]) -> Iterator[Finding]:
    """`static` is what reading has found: where it knows the executor, what was seen is added to it."""
    worst = max(seen.executors, key=lambda one: int(one["queued"]), default=None)
    if worst is None or worst["queued"] < WAITING_SHARE * seen.at_once:
        return
    says = f"{worst['queued']} jobs of {seen.at_once} requests of {seen.route.name} waited for {worst['size']} threads."
    known = [one for one in static if one.rule == "executor-full"]
    if known:
        yield replace(known[0], says=f"{known[0].says} Seen: {says}", cost=known[0].cost + 1)
        return
    name = str(worst["name"])
    file, _, line = (made_at(name, project) or seen.route.place).rpartition(":")
    yield Finding(
        "executor-full",
        file,
        int(line or 0),
        f"`{name}` is full: {says}",
        "Give max_workers as many as requests may be in flight (threads are greenlets here), or make the call in the "
        "request.",
        cost=1.0,
    )


def made_at(name: str, project: Project) -> str:
    """`file:line` of what insight calls `pool of shop/views.py`; "" where no module's text makes it."""
    short, _, file = name.partition(" of ")
    for values in project.module_values.values():
        binding = values.get(short)
        if binding is not None and binding.source.shown == file:
            return f"{file}:{binding.line}"
    return ""
