"""Applying the entries of the list, each feature whole or not at all.

    @part("sqlite3")
    def install(put: Put) -> None:            called as `install()`
        put(sqlite3, "connect", connect)

    applied already?                          nothing to do
    a version that nobody has tested,         the package stays as it is; one line in the log names it
    something it needs that is off
    a name is missing, or has another         what the feature has replaced is put back; the same line
    signature, or installing fails

A package that is not imported yet is left to `on_import.when_imported`, whose action is such a part.
"""

import functools
import inspect
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Concatenate, ParamSpec

from ..settings import Settings, environment_name
from .model import Feature, Name, State
from .versions import installed_version

logger = logging.getLogger(__name__)
P = ParamSpec("P")
MISSING: Any = object()


class Declined(Exception):
    """A part raises it when this system or these settings leave nothing to replace; the message says why."""


class Undeclared(LookupError):
    """A name is about to be replaced that is not on the list."""


class Changed(Exception):
    """A name is not what the tests know."""


@dataclass
class Applied:
    """One name of one owner that was replaced, and the value that it had."""

    name: Name
    owner: Any
    value: Any
    before: Any
    put_back: Callable[[], None]
    order: int = field(default_factory=itertools.count().__next__)


@dataclass(frozen=True)
class Problem:
    """Why a feature is off. `subject` is a distribution and its version, "" where it has nothing to do with them."""

    subject: str
    cause: str

    def sentence(self, without: str) -> str:
        said = f"{self.subject}: {self.cause}" if self.subject else self.cause
        return f"{said}, {without}" if without else said


@dataclass
class Live:
    """A feature in this process."""

    feature: Feature
    problem: Problem | None = None
    parts: set[str] = field(default_factory=set)
    applied: list[Applied] = field(default_factory=list)


class Put:
    """Replaces a name that is on the list: `put(owner, name, value)`."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def __call__(self, owner: Any, name: str, value: Any) -> None:
        """Raises Changed when the owner has no such name, or one with other parameters than the list says."""
        entry = self._entry(owner, name)
        check(entry, owner)
        before, put_back = _memory(owner, name, value)
        setattr(owner, name, value)
        self._live.applied.append(Applied(entry, owner, value, before, put_back))

    def use(self, owner: Any, name: str, put_back: Callable[[], None]) -> None:
        """An interface of the package's own is used; `put_back` ends that."""
        entry = self._entry(owner, name)
        check(entry, owner)
        self._live.applied.append(Applied(entry, owner, None, None, put_back))

    def _entry(self, owner: Any, name: str) -> Name:
        feature = self._live.feature
        for entry in feature.names:
            if entry.name == name and _is_owner(entry, owner):
                return entry
        if feature.is_open:
            return Name(path_of(owner), name, feature.title, feature.key, is_optional=True)
        raise Undeclared(f"{path_of(owner)}.{name} is not on the list of {feature.key} (greenroom/replacements)")


class Registry:
    """All features of this process."""

    def __init__(self, features: Iterable[Feature], installed: Callable[[str], str | None] = installed_version) -> None:
        self.live = {feature.key: Live(feature) for feature in features}
        self.installed = functools.cache(installed)
        self.told: set[str] = set()

    def apply(self, key: str, part: str, install: Callable[[Put], None]) -> bool:
        """Whether the part is in place. Runs on: the main thread, or whoever imports the package."""
        live = self.live[key]
        if part in live.parts:
            return True
        live.problem = live.problem or self.problem(live.feature)
        if live.problem is not None:
            self._tell(live)
            return False
        live.parts.add(part)
        try:
            install(Put(live))
        except Undeclared:
            self.undo(key)
            raise
        except Declined as exc:
            self._turn_off(live, Problem("", str(exc)))
        except Changed as exc:
            self._turn_off(live, Problem(self._subject(live.feature), str(exc)))
        except Exception as exc:  # whatever a version that we don't know has for us: it goes its own way
            logger.debug("installing %s failed", part, exc_info=True)
            cause = f"replacing its names failed ({type(exc).__name__}: {exc})"
            self._turn_off(live, Problem(self._subject(live.feature), cause))
        return live.problem is None

    def put(self, key: str, *values: tuple[object, str, object]) -> bool:
        """Replace `(owner, name, value)` of objects or functions that are known only now; whether they are.

        Not once, as a part, but each time; all of these or none.
        """
        live = self.live[key]
        mark = len(live.applied)
        live.problem = live.problem or self.problem(live.feature)
        if live.problem is not None:
            self._tell(live)
            return False
        try:
            for owner, name, value in values:
                Put(live)(owner, name, value)
        except Changed as exc:
            while len(live.applied) > mark:
                live.applied.pop().put_back()
            self._turn_off(live, Problem(self._subject(live.feature), str(exc)))
        return live.problem is None

    def undo(self, *keys: str) -> None:
        """Put back what was replaced, of all features where none is named. For tests."""
        for key in reversed(keys or tuple(self.live)):
            live = self.live[key]
            for applied in reversed(live.applied):
                applied.put_back()
            live.applied.clear()
            live.parts.clear()
            live.problem = None

    def put_again(self) -> None:
        """Replace anew what somebody has set to what it was before: gevent does when it patches once more."""
        for applied in sorted((each for live in self.live.values() for each in live.applied), key=_order):
            if not applied.name.is_interface and current(applied.owner, applied.name.name) is applied.before:
                setattr(applied.owner, applied.name.name, applied.value)

    def problem(self, feature: Feature) -> Problem | None:
        """Return the reason against a feature: the versions here, or a feature that it needs."""
        for tested in feature.tested:
            installed = self.installed(tested.distribution)
            if installed is None:
                return Problem("", f"there is no {tested.distribution}")
            if not tested.knows(installed) and not feature.is_required:
                return Problem(f"{tested.distribution} {installed}", f"unknown to us (tested: {tested})")
        for key in feature.needs:
            needed = self.live[key]
            problem = needed.problem or self.problem(needed.feature)
            if problem is not None:
                return problem
        return None

    def states(self, settings: Settings | None = None) -> list[State]:
        return [self._state(live, settings) for live in self.live.values()]

    def _state(self, live: Live, settings: Settings | None) -> State:
        feature = live.feature
        version = self.installed(feature.package)
        if version is None:
            return State(feature.package, "", feature.title, "absent", f"{feature.package} is not installed")
        switch = "" if settings is None else _switched_off(feature, settings)
        if switch:
            return State(feature.package, version, feature.title, "off", switch)
        problem = live.problem or self.problem(feature)
        if problem is not None:
            said = problem.sentence(feature.without)
            return State(feature.package, version, feature.title, "off", said, problem.sentence(""))
        return State(feature.package, version, feature.title, "on", self._doubt(feature))

    def announce(self, log: Callable[[str], object], settings: Settings | None = None) -> None:
        """Say now what the installed versions turn off, a line for each distribution. Forked workers don't repeat it.

        Runs on: arbiter.
        """
        for live in self.live.values():
            if settings is not None and _switched_off(live.feature, settings):
                continue
            doubt = self._doubt(live.feature)
            if doubt and doubt not in self.told:
                self.told.add(doubt)
                log(doubt)
            if self.installed(live.feature.package) is not None and self.problem(live.feature) is not None:
                live.problem = live.problem or self.problem(live.feature)
                self._tell(live, log)

    def _doubt(self, feature: Feature) -> str:
        """A sentence where a package that we can't do without has a version that nobody has tested; else ""."""
        for tested in feature.tested if feature.is_required else ():
            installed = self.installed(tested.distribution) or ""
            if not tested.knows(installed):
                return f"{tested.distribution} {installed}: unknown to us (tested: {tested}), it may not work"
        return ""

    def _turn_off(self, live: Live, problem: Problem) -> None:
        dependents = [other for other in self.live.values() if live.feature.key in other.feature.needs and other.parts]
        for dependent in dependents:
            self._turn_off(dependent, problem)
        self.undo(live.feature.key)
        live.problem = problem
        self._tell(live)

    def _tell(self, live: Live, log: Callable[[str], object] = logger.warning) -> None:
        """One line for each distribution, however many features it turns off."""
        problem = live.problem
        if problem is None or (problem.subject or live.feature.key) in self.told:
            return
        self.told.add(problem.subject or live.feature.key)
        others = [
            other.feature.without
            for other in self.live.values()
            if problem.subject and (other.problem or self.problem(other.feature)) == problem
        ]
        log(problem.sentence("; ".join(dict.fromkeys([live.feature.without, *others]))))

    def _subject(self, feature: Feature) -> str:
        return f"{feature.package} {self.installed(feature.package)}"


def part_of(registry: Registry, key: str) -> Callable[[Callable[Concatenate[Put, P], None]], Callable[P, bool]]:
    """A decorator: the function is given a Put first, and runs once, if its feature can be on."""

    def decorate(function: Callable[Concatenate[Put, P], None]) -> Callable[P, bool]:
        name = f"{function.__module__}.{function.__qualname__}"

        @functools.wraps(function)
        def install(*args: P.args, **kwargs: P.kwargs) -> bool:
            return registry.apply(key, name, lambda put: function(put, *args, **kwargs))

        return install

    return decorate


def check(entry: Name, owner: Any) -> None:
    """Raises Changed."""
    found = current(owner, entry.name)
    if found is MISSING:
        if entry.is_optional or entry.is_added:
            return
        raise Changed(f"{entry.path} is not there any more")
    expected = None if entry.parameters is None else entry.parameters.split()
    actual = parameters_of(found)
    if expected is not None and actual is not None and actual != expected:
        module = str(getattr(found, "__module__", None) or entry.path)
        if module.partition(".")[0] != entry.path.partition(".")[0]:
            if entry.is_chained and len(actual) == len(expected):
                return
            raise Changed(f"{entry.path} has been replaced by {module}")
        raise Changed(f"{entry.path} takes other arguments than we know ({', '.join(actual)})")


def parameters_of(found: Any) -> Sequence[str] | None:
    """The names of the parameters; None where they can't be known: it is in C, or behind somebody's wrapper."""
    function = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if all(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return None
    return [each.name for each in parameters]


def current(owner: Any, name: str) -> Any:
    """Return the owner's value under this name, as it lies there: no property is asked. MISSING: nothing."""
    return inspect.getattr_static(owner, name, MISSING)


def _memory(owner: Any, name: str, value: Any) -> tuple[Any, Callable[[], None]]:
    """Return the present value of `owner.name`, and a function that restores it."""
    before = current(owner, name)
    if name in getattr(owner, "__dict__", {}):

        def put_back() -> None:
            if current(owner, name) is value:  # else somebody has replaced it since, and has ours in theirs
                setattr(owner, name, before)

    elif isinstance(owner, ModuleType | type) or not hasattr(before, "__set__"):

        def put_back() -> None:
            if vars(owner).get(name) is value:
                delattr(owner, name)

    else:  # a property
        held = getattr(owner, name)

        def put_back() -> None:
            setattr(owner, name, held)

    return before, put_back


def _is_owner(entry: Name, owner: Any) -> bool:
    if entry.of_instances:
        return not isinstance(owner, ModuleType | type)
    return resolve(entry.owner) is owner


def _order(applied: Applied) -> int:
    return applied.order


def resolve(path: str) -> Any:
    """The module, class or object by this path; MISSING where its module is not loaded, or has no such name."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        found: Any = sys.modules.get(".".join(parts[:count]))
        if found is not None:
            for name in parts[count:]:
                found = getattr(found, name, MISSING)
            return found
    return MISSING


def path_of(owner: Any) -> str:
    if isinstance(owner, ModuleType):
        return owner.__name__
    kind = owner if isinstance(owner, type) else type(owner)
    return f"{kind.__module__}.{kind.__qualname__}"


def _switched_off(feature: Feature, settings: Settings) -> str:
    """Why the settings leave a feature out; "" where they don't."""
    if not settings.patch:
        return f"{environment_name('patch')} is off"
    if feature.setting is not None and not getattr(settings, feature.setting):
        return f"{environment_name(feature.setting)} is off"
    if feature.is_for_worker and settings.worker_class != "greenroom":
        return f"{environment_name('worker_class')} is {settings.worker_class}"
    return ""
