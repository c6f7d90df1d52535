"""The entries of the list of replacements."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from .versions import Range

StateName = Literal["on", "off", "absent"]


# `replace(owner, name, value)`: a Put, or `setattr` in tests.
Replace = Callable[[Any, str, Any], None]


@dataclass(frozen=True)
class Name:
    """One name of another package that is replaced.

    `owner` is the path of a module or class. `by` is the module of ours in which the replacement is. `parameters` are
    those of the original, where the replacement relies on them. `is_optional`: some versions have no such name.
    `of_instances`: it is set on objects of the class `owner`, not on the class. `is_added`: the package has no such
    name, and the replacement is found where something is missing (`__getattr__`). `is_interface`: it is the package's
    own way to be told something, and is called, not replaced. `is_chained`: the replacement calls what it has found,
    so that somebody else's wrapper may lie there.
    """

    owner: str
    name: str
    why: str
    by: str
    parameters: str | None = None
    is_optional: bool = False
    of_instances: bool = False
    is_added: bool = False
    is_interface: bool = False
    is_chained: bool = False

    @property
    def path(self) -> str:
        return f"{self.owner}.{self.name}"


@dataclass(frozen=True)
class Feature:
    """Names that are replaced together, or none of them.

    `package` is the distribution whose names they are; `tested` says with which versions of it, and of others, the
    tests pass. `without` completes the sentence about a version that nobody has tested. `needs` are other features that
    this one relies on. `setting` is the setting that turns it off. `is_for_worker`: it belongs to our worker class.
    `is_required`: Greenroom is nothing without the package, so a version that nobody has tested is tried all the same.
    `is_open`: which names are replaced is known only when it is applied, and `names` describes them.
    """

    key: str
    title: str
    package: str
    tested: tuple[Range, ...]
    without: str
    names: tuple[Name, ...]
    needs: tuple[str, ...] = ()
    setting: str | None = None
    is_for_worker: bool = False
    is_required: bool = False
    is_open: bool = False


@dataclass(frozen=True)
class State:
    """Whether a feature is on in this process. `reason` is "" or one sentence; `version` is "" where it is absent.

    `cause` is what lies behind it, mostly a version: several features may be off because of it.
    """

    package: str
    version: str
    feature: str
    state: StateName
    reason: str
    cause: str = ""

    def __str__(self) -> str:
        what = f"{self.package} {self.version}".strip()
        return f"{what}: {self.feature}: {self.state}{f' ({self.reason})' if self.reason else ''}"


def names(
    owners: str,
    named: str,
    why: str,
    by: str,
    *,
    parameters: str | None = None,
    is_optional: bool = False,
    of_instances: bool = False,
    is_added: bool = False,
    is_interface: bool = False,
    is_chained: bool = False,
) -> tuple[Name, ...]:
    """An entry for each of these names of each of these owners; both lists are separated by spaces."""
    return tuple(
        Name(owner, name, why, by, parameters, is_optional, of_instances, is_added, is_interface, is_chained)
        for owner, name in product(owners.split(), named.split())
    )
