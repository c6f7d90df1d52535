"""Versions: which ones are installed here, and whether the tests know them."""

import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PYTHON = "Python"
# Distributions that bring the same package.
OTHER_NAMES = {"psycopg2": ("psycopg2-binary",)}


@dataclass(frozen=True)
class Range:
    """The first and the last version of a distribution with which the tests pass, as far as they are written out.

    `Range("requests", "2.31", "2.34")` has every 2.34.x in it, and no 2.35. `but` has releases between with which
    they fail.
    """

    distribution: str
    first: str
    last: str
    but: tuple[str, ...] = ()

    def knows(self, installed: str) -> bool:
        number, first, last = map(parts, (installed, self.first, self.last))
        if not number or number in map(parts, self.but):
            return False
        return number[: len(first)] >= first and number[: len(last)] <= last

    def __str__(self) -> str:
        exception = f" but {' and '.join(self.but)}" if self.but else ""
        return self.first if self.first == self.last else f"{self.first} to {self.last}{exception}"


def parts(number: str) -> tuple[int, ...]:
    """The leading numbers of a version, `(2, 34, 2)`; nothing of what says that it is a release candidate."""
    found = re.match(r"\d+(?:\.\d+)*", number)
    return tuple(map(int, found[0].split("."))) if found else ()


def installed_version(distribution: str) -> str | None:
    """The version that is installed; None when there is none. Imports nothing of the package's own."""
    if distribution == PYTHON:
        return platform.python_version()
    for name in (distribution, *OTHER_NAMES.get(distribution, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
