"""Calls that can't yield run in real OS threads, while the greenlet that made them waits and the loop goes on.

Two lists in the settings, two sets of threads:

    offload           functions that compute without holding the GIL (password hashes): as many threads as cores
    offload_drivers   functions that wait in C for somebody else (a C database driver): as many as may wait at once

A name is `module.function`, `module.Class.method`, `module.Class.*` or `module.*`: all functions that are public.
They are replaced where they are defined as soon as their module is imported, and in every module that held them before.
Everything else about them stays: arguments, answer, exceptions and context variables.

Called outside the event loop (a command, a thread of this kind), they are simply called.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from types import ModuleType
from typing import Any, TypeVar

from . import replacements
from .cores import usable_cores
from .deadline import raise_if_refused
from .errors import OffloadError
from .on_import import when_imported
from .settings import OFFLOAD_DEFAULTS, Settings, comma_separated
from .waits.threads import Threads, can_wait, own_record

T = TypeVar("T")


class Offload:
    """The functions named in one setting, and the threads they run in."""

    def __init__(self, names: Sequence[str], threads: Threads, optional: Sequence[str] = ()) -> None:
        self.names = names
        self.threads = threads
        self.optional = optional
        self.replaced: set[str] = set()

    def install(self) -> None:
        """Replace the functions of all modules that are loaded, and of the others when they are.

        An error in a name is only known when its module is loaded, and told by `problems()`.
        """
        for name in self.names:
            for module_name in possible_modules(name):
                when_imported(module_name, functools.partial(self._replace_quietly, name))

    def problems(self) -> list[str]:
        """Return the problems of the names, a sentence each. Imports their modules, but none for optional names.

        Runs on: worker start-up, when the application is loaded.
        """
        found = []
        for name in self.names:
            if name in self.replaced or name in self.optional:
                continue
            try:
                self._replace(name, _module_of(name))
            except OffloadError as exc:
                found.append(str(exc))
        return found

    def run(self, name: str, function: Callable[..., T], args: tuple[object, ...], kwargs: Mapping[str, object]) -> T:
        """`function(*args, **kwargs)` in a thread. Raises BudgetSpent, a TimeoutError, when the request ends first.

        The answer of a call that nobody waits for any more is dropped; one that was still in line is never begun.
        Runs on: request greenlet; switches.
        """
        if not can_wait():
            return function(*args, **kwargs)
        raise_if_refused()
        context = copy_context()
        record = context.run(own_record)
        job = self.threads.submit(functools.partial(context.run, function, *args, **kwargs))
        try:
            job.wait("offload", name, None)
            answer: T = job.result()
            return answer
        finally:
            job.error = None  # its traceback refers to this frame
            if not job.is_done:
                self.threads.withdraw(job)
                if record is not None:
                    record.is_given_up = True  # what it still waits for in its thread ends, too

    def _replace_quietly(self, name: str, module: ModuleType) -> None:
        try:
            self._replace(name, module)
        except OffloadError:
            pass  # `a.b.c` is looked for in `a` and in `a.b`; what is found in neither is told at start-up

    def _replace(self, name: str, module: ModuleType) -> None:
        """Raises OffloadError when `name` is not in `module`, or can't be replaced."""
        path = name.removeprefix(module.__name__ + ".").split(".")
        owner: Any = module
        for part in path[:-1]:
            owner = getattr(owner, part, None)
            if owner is None:
                raise OffloadError(f"{name}: {module.__name__} has no {part}")
        attributes = public_functions(owner) if path[-1] == "*" else path[-1:]
        if not attributes:
            raise OffloadError(f"{name}: there is no public function")
        for attribute in attributes:
            self._replace_one(f"{name.removesuffix('.*')}.{attribute}" if path[-1] == "*" else name, owner, attribute)
        self.replaced.add(name)

    def _replace_one(self, name: str, owner: Any, attribute: str) -> None:
        held = inspect.getattr_static(owner, attribute, None)
        function = held.__func__ if isinstance(held, staticmethod | classmethod) else held
        if not callable(function) or isinstance(function, type):
            raise OffloadError(f"{name}: {getattr(owner, '__name__', owner)} has no function {attribute}")
        if getattr(function, "__offloaded__", False):
            return
        wrapper: Any = self._wrapper(name, function)
        if isinstance(held, staticmethod | classmethod):
            wrapper = type(held)(wrapper)
        try:
            replacements.put("offload", (owner, attribute, wrapper))
        except TypeError as exc:
            raise OffloadError(
                f"{name}: a class written in C can't be changed; name a subclass of it, or a function that uses it"
            ) from exc
        if isinstance(owner, ModuleType):
            replace_in_modules(function, wrapper)

    def _wrapper(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def offloaded(*args: Any, **kwargs: Any) -> Any:
            return self.run(name, function, args, kwargs)

        functools.update_wrapper(offloaded, function)
        offloaded.__offloaded__ = True  # type: ignore[attr-defined]
        return offloaded


def offloads(settings: Settings, cores: int) -> list[Offload]:
    """Return the offloads of the settings, not installed yet. `cores` is what this process may use."""
    computing = Threads(settings.offload_threads or cores_per_worker(settings, cores))
    return [
        Offload(comma_separated(settings.offload), computing, optional=OFFLOAD_DEFAULTS),
        Offload(comma_separated(settings.offload_drivers), Threads(settings.offload_driver_threads)),
    ]


def cores_per_worker(settings: Settings, cores: int) -> int:
    """All workers together are not to compute on more cores than there are; one thread each there must be."""
    return max(1, cores // (settings.web_concurrency or cores))


@functools.cache
def install(settings: Settings) -> list[Offload]:
    """Replace what the settings name, in this process, once.

    Runs on: the main thread, after patching and before the application is imported.
    """
    found = offloads(settings, usable_cores())
    for offload in found:
        offload.install()
    return found


def check(settings: Settings) -> None:
    """Raises OffloadError with all names of the settings that mean nothing. Runs on: worker start-up."""
    problems = [problem for offload in install(settings) for problem in offload.problems()]
    if problems:
        raise OffloadError("; ".join(problems))


def possible_modules(name: str) -> list[str]:
    """`a.b.c` may be c in module a.b, or c of class b in module a."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def public_functions(owner: Any) -> list[str]:
    """Return the callables of a module or class: neither private names nor classes, nor what a module imported."""
    found = []
    for attribute in getattr(owner, "__all__", None) or dir(owner):
        value = inspect.getattr_static(owner, attribute, None)
        is_function = inspect.isroutine(value) or isinstance(value, staticmethod | classmethod)
        if attribute.startswith("_") or not is_function:
            continue
        if isinstance(owner, ModuleType) and not hasattr(owner, "__all__") and _is_foreign(value, owner):
            continue
        found.append(attribute)
    return found


def _is_foreign(function: Any, module: ModuleType) -> bool:
    """Whether a module only imported `function`, from another package than its own; `_shop` is the C part of `shop`."""
    home = getattr(function, "__module__", None) or module.__name__
    top, own = home.partition(".")[0], module.__name__.partition(".")[0]
    return bool(top.lstrip("_") != own.lstrip("_"))


def replace_in_modules(old: Any, new: Any) -> None:
    """Put `new` where loaded modules hold `old` because they imported it by name."""
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if value is old:
                replacements.put("offload", (module, attribute, new))


def _module_of(name: str) -> ModuleType:
    """The module in which `name` lies, imported if it must be. Raises OffloadError when there is none."""
    for module_name in possible_modules(name):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as exc:
            if exc.name is None or not (module_name + ".").startswith(exc.name + "."):
                raise OffloadError(f"{name}: {module_name} can't be imported: {exc}") from exc
        except Exception as exc:
            raise OffloadError(f"{name}: {module_name} can't be imported: {exc}") from exc
    raise OffloadError(f"{name}: there is no module {possible_modules(name)[-1]}")
