"""Every name of another package that Greenroom replaces, in one list: owner, name, replacement, reason, versions.

    standard_library   what is replaced in Python and gevent
    packages           what is replaced in requests, SQLAlchemy, psycopg2, Flask and others
    model              what an entry is
    versions           what is installed, and what was tested
    registry           applying it, each feature whole or not at all, and undoing it
    report             `greenroom patched`, and the table of docs/replacements.md

Nothing else assigns to a name of another package; a test reads the sources for it. `states()` says what is on, what is
off and why.
"""

from collections.abc import Callable
from typing import Concatenate, ParamSpec

from ..settings import Settings
from . import packages, standard_library
from .model import Feature, Name, Replace, State
from .registry import Declined, Put, Registry, part_of

__all__ = [
    "FEATURES", "Declined", "Feature", "Name", "Put", "Replace", "State", "announce", "part", "put", "registry",
    "states", "undo",
]  # fmt: skip

FEATURES = (*standard_library.FEATURES, *packages.FEATURES)
# Of this process.
registry = Registry(FEATURES)
P = ParamSpec("P")


def states(settings: Settings | None = None) -> list[State]:
    """Return the state of each feature, in the order of the list: on, off or absent here, and why.

    A feature of a package that is not imported yet is on if it will be when it is. With `settings`, what they turn off
    is off. Imports no package; works in a process that is not patched, too.
    """
    return registry.states(settings)


def announce(log: Callable[[str], object], settings: Settings | None = None) -> None:
    """Give `log` one line for each installed version that nobody has tested; workers forked later don't repeat them.

    Nothing is said of what `settings` turn off.
    """
    registry.announce(log, settings)


def part(key: str) -> Callable[[Callable[Concatenate[Put, P], None]], Callable[P, bool]]:
    """Make a function a part of the feature `key`: it is given a Put, and runs once, if the feature can be on.

    The decorated function returns whether it is.
    """
    return part_of(registry, key)


def put(key: str, *values: tuple[object, str, object]) -> bool:
    """Replace `(owner, name, value)`, each time anew: objects, and names that settings have. Whether they are."""
    return registry.put(key, *values)


def undo(*keys: str) -> None:
    """Put back what was replaced, of all features where none is named. For tests."""
    registry.undo(*keys)
