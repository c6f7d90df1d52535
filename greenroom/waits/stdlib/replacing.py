"""Our locks and queues in the places of gevent's, which are in the places of the standard library's."""

import _thread
import functools
import importlib
import logging
import queue
import ssl
import sys
import threading
from pathlib import Path
from types import FunctionType
from typing import Any

from gevent import events, monkey

from ...replacements import Put, Replace, part, registry
from . import composed
from .locks import Lock, RLock, allocate_lock
from .queues import SimpleQueue

GeventLock: type = importlib.import_module("gevent.thread").LockType
NAMES: dict[Any, dict[str, Any]] = {
    _thread: {"allocate_lock": Lock, "allocate": Lock, "LockType": Lock, "lock": Lock, "RLock": RLock},
    threading: {"Lock": Lock, "_allocate_lock": allocate_lock, "_set_sentinel": Lock, "_CRLock": RLock},
    functools: {"RLock": RLock},  # until Python 3.11, of cached_property
    queue: {"SimpleQueue": SimpleQueue},
}
# Modules of which functions are replaced.
PICKLED_FROM = ("time", "os", "select", "socket", "fcntl", "_thread", "sqlite3")
OUR_FOLDER = str(Path(__file__).parents[2])
# CPython's own are right, over our locks and gevent's sockets.
RESTORED = {
    threading: ("Event",),
    queue: ("Queue", "LifoQueue", "PriorityQueue"),
    ssl: ("get_server_certificate",),  # gevent's has no timeout, and does not tell the server which name is meant
}


@part("waits")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching. Safe to call again."""
    for module, names in NAMES.items():
        for name, ours in names.items():
            if hasattr(module, name):
                put(module, name, ours)
    for module, restored in RESTORED.items():
        for name in restored:
            put(module, name, monkey.get_original(module.__name__, name))
    replace_locks(put)
    composed.replace(put)
    free_no_greenlet_of_others(put)

    def patched_again(event: Any) -> None:
        """The application has called `monkey.patch_all(sys=True)`, say, which patches everything anew."""
        if isinstance(event, events.GeventDidPatchBuiltinModulesEvent):
            registry.put_again()
            replace_locks(put)

    events.subscribers.append(patched_again)
    put.use(events, "subscribers", lambda: events.subscribers.remove(patched_again))


def free_no_greenlet_of_others(put: Put) -> None:
    """Locks know their owners, so one thread may look at another's greenlet just when that thread ends.

    greenlet takes such a reference, which only the stack of a running function has, for one that was lost: it drops it,
    and the greenlet is freed while it is used. That damages memory (6 of 7 hammered RLocks ended the process within 8
    s). Without this nothing was left behind by threads that end, in whatever way.
    """
    core: Any = importlib.import_module("greenlet._greenlet")
    core.enable_optional_cleanup(False)
    put.use(core, "enable_optional_cleanup", functools.partial(core.enable_optional_cleanup, True))


def replace_locks(put: Replace) -> None:
    """Locks that gevent has made while it patched."""
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if isinstance(module, type(sys)) else ():
            if type(value) is GeventLock:
                put(module, name, as_ours(value))
    # CPython's is one that can be taken again, by the garbage collector say.
    starting = RLock()
    starting.is_noted = False
    put(threading, "_active_limbo_lock", starting)
    main: Any = threading.main_thread()
    if type(getattr(main, "_tstate_lock", None)) is GeventLock:
        put(main, "_tstate_lock", as_ours(main._tstate_lock))
    put(logging, "_lock", RLock())
    for reference in logging._handlerList:  # type: ignore[attr-defined]
        handler = reference()
        if handler is not None and handler.lock is not None:
            put(handler, "lock", RLock())


def name_functions() -> None:
    """Let functions of ours go by the names that they have replaced: `pickle` finds them by those.

    Runs on: the main thread, when all is replaced.
    """
    for module in (sys.modules[name] for name in PICKLED_FROM if name in sys.modules):
        for name, value in list(vars(module).items()):
            is_ours = isinstance(value, FunctionType) and value.__code__.co_filename.startswith(OUR_FOLDER)
            if is_ours and getattr(sys.modules.get(value.__module__), value.__qualname__, None) is not value:
                value.__module__, value.__name__, value.__qualname__ = module.__name__, name, name


def as_ours(theirs: Any) -> Lock:
    lock = Lock()
    if theirs.locked():
        lock.acquire()
    return lock
