"""Whether it is too late to patch: which loaded modules hold what patching replaces, who brought them, what to do.

Must be asked before patching.
"""

import queue
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any

from . import agents

# Held by modules that were imported for their functions; gevent replaces each of these.
REPLACED = {
    "socket": ("socket", "create_connection", "getaddrinfo", "gethostbyname", "socketpair"),
    "ssl": ("SSLContext", "SSLSocket", "create_default_context"),
    "threading": ("Lock", "RLock", "Event", "local"),  # Thread and Condition stay what they are and look these up
    "queue": ("SimpleQueue",),
    "select": ("select", "poll"),
    "time": ("sleep",),
    "subprocess": ("Popen", "run", "check_call", "check_output"),
}
MODULES: dict[str, ModuleType] = {
    module.__name__: module for module in (socket, ssl, threading, queue, select, time, subprocess)
}
# These hold what they replace, or are the ones asking.
INNOCENT = ("gevent", "greenlet", "greenroom")
# gunicorn's name for its configuration file, which it runs as a module; what the file is called.
CONFIGURATION = "__config__"
CONFIGURATION_FILE = "gunicorn.conf.py"
# A module that Python imports before any program, if it is there.
HOOK = "sitecustomize"


def unpatched_holders(modules: dict[str, ModuleType] | None = None) -> list[str]:
    """A sentence for each loaded module that holds what patching would replace, and one for threads that run.

    Must be asked before patching. Modules of the standard library are gevent's to deal with and are not looked at.
    """
    originals = {
        id(getattr(MODULES[name], attribute)): f"{name}.{attribute}"
        for name, attributes in REPLACED.items()
        for attribute in attributes
        if hasattr(MODULES[name], attribute)
    }
    found = []
    for module in _foreign_modules(modules or sys.modules):
        held = [what for name, value in list(vars(module).items()) if (what := _held(name, value, originals))]
        if held:
            first = first_importer(module.__name__.partition(".")[0])
            found.append(
                f"{module.__name__} holds {', '.join(sorted(set(held)))}" + (f"; imported by {first}" if first else "")
            )
    running = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if running:
        found.append(f"threads run already: {', '.join(running)}")
    return found


def advice() -> str:
    """Return the advice for this process, a sentence."""
    if command := agents.launcher():
        return (
            f"The agent that `{command}` brings has imported them. Let patching come first: "
            f"`greenroom run -- {command} ...`, with what you started behind it."
        )
    if CONFIGURATION in sys.modules:
        return (
            f"Begin {CONFIGURATION_FILE} with `from greenroom.configuration import patch_first; patch_first()`, or "
            "import them in its hooks, or start with `greenroom run -- gunicorn ...`."
        )
    return (
        "Call greenroom.patching.patch() before importing them, in the first lines of the program, or start it with "
        "`greenroom run -- python ...`."
    )


def first_importer(package: str) -> str:
    """Return the module that brought `package` in, as far up as can be seen; "" when nothing loaded refers to it."""
    # A module moves to the end when it is complete, so what it imports stands before it. A file that gunicorn runs as a
    # module does not move.
    order = {name: number for number, name in enumerate(list(sys.modules))}
    loaded = [number for name, number in order.items() if name == package or name.startswith(package + ".")]
    if loaded and loaded[0] < order.get(HOOK, -1):
        file = getattr(sys.modules[HOOK], "__file__", None)
        return f"{agents.launcher() or HOOK} ({file})" if file else HOOK
    if loaded and loaded[0] > order.get(CONFIGURATION, len(order)):
        return CONFIGURATION_FILE
    return _referring_module(package)


def _referring_module(package: str) -> str:
    """The module through which `package` came in, by what modules refer to.

    The first module that refers to a package is one that imported it; then the same question is asked about that
    module's package.
    """
    seen = {package}
    brought_by = ""
    while found := _first_reference(package, seen):
        if found == "__main__" and brought_by:
            break  # the program itself brings everything; the module below it says more
        brought_by = found
        package = found.partition(".")[0]
        seen.add(package)
    return brought_by


def _first_reference(package: str, but_not: set[str]) -> str:
    for name, module in list(sys.modules.items()):
        if (
            name.partition(".")[0] in but_not
            or name.partition(".")[0] in INNOCENT
            or not isinstance(module, ModuleType)
        ):
            continue
        for value in list(vars(module).values()):
            origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(origin, str) and origin.partition(".")[0] == package:
                return name
    return ""


def _foreign_modules(modules: dict[str, ModuleType]) -> list[ModuleType]:
    """Each loaded module once, without the standard library (gevent deals with it) and ourselves."""
    foreign = {
        id(module): module
        for name, module in list(modules.items())
        if name.partition(".")[0] not in sys.stdlib_module_names | set(INNOCENT) and isinstance(module, ModuleType)
    }
    return list(foreign.values())


# An object of one of these, made before patching, is made over an unpatched lock.
LOCK_TYPES = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Semaphore,
    threading.Event,
    queue.Queue,
)


def _held(attribute: str, value: Any, originals: dict[int, str]) -> str:
    """Name the unpatched thing `value` is: a class or function, a subclass of one, or a lock; "" when it is none."""
    if id(value) in originals:
        return originals[id(value)]
    if isinstance(value, LOCK_TYPES):
        return f"the lock {attribute}"
    if isinstance(value, type):
        for base in value.__mro__[1:]:
            if id(base) in originals:
                return f"{attribute}, a subclass of {originals[id(base)]}"
        for name, item in list(vars(value).items()):
            if isinstance(item, LOCK_TYPES):
                return f"the lock {attribute}.{name}"
    return ""
