"""All rules about an application's own files, asked one after the other."""

from collections.abc import Iterator

from ..findings import Finding
from . import (
    at_import,
    drivers,
    folders,
    locks,
    memory,
    pools,
    process,
    queries,
    retries,
    sharing,
    tasks,
    threads,
    upstreams,
)
from .project import Project

GROUPS = (
    upstreams,
    retries,
    sharing,
    memory,
    locks,
    threads,
    drivers,
    pools,
    queries,
    process,
    folders,
    at_import,
    tasks,
)


def find(project: Project, failed: list[str]) -> Iterator[Finding]:
    """Yield the findings of all rules. A group that fails is named in `failed`, and the others are asked."""
    for rules in GROUPS:
        try:
            yield from list(rules.find(project))
        except Exception as exc:
            topic = rules.__name__.rpartition(".")[2]
            failed.append(f"the rules about {topic} failed, which is a defect of doctor: {exc!r}")
