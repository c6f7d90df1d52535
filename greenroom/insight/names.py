"""By which name the application's modules know an object, and where it was made: "LOCK of shop/prices.py:9".

Asked only for what many queue for, some times a minute: a lock or an executor is mostly made once, at module level, and
its name says which it is. Objects that are kept elsewhere (an attribute, a local variable) have none here; the line
that made a lock is known of each of ours.
"""

import sys
import weakref
from typing import Any

from ..frames import line_of
from ..waits.stdlib.locks import Mutex
from . import stacks

# Of all that are imported: an application with its libraries has some thousand.
MOST_MODULES = 20_000
MOST_KNOWN = 200
_known: dict[int, tuple[weakref.ref[Any], str]] = {}


def name_of(thing: Any) -> str:
    """Its name and file; "" where no module of the application's has it. Runs none of its code, not even its hash."""
    ref, name = _known.get(id(thing), (None, ""))
    if ref is not None and ref() is thing:
        return name
    name = _look(thing)
    try:
        ref = weakref.ref(thing)
    except TypeError:
        return name
    if len(_known) >= MOST_KNOWN:
        _known.clear()
    _known[id(thing)] = ref, name
    return name


def described(thing: Any, lock: Any) -> str:
    """Its name and the line that made it: where `lock` was made, which is the thing itself or a part of it."""
    name = name_of(thing)
    made = made_at(lock)
    if not name:
        return f"made at {made}" if made else ""
    file = made.rpartition(":")[0]
    if file and name.endswith(f" of {file}"):
        return f"{name.removesuffix(file)}{made}"
    return f"{name}, made at {made}" if made else name


def made_at(lock: Any) -> str:
    """`file:line` that made one of our locks; "" of others."""
    if not isinstance(lock, Mutex) or lock.made_in is None:
        return ""
    return f"{stacks.shortened(lock.made_in.co_filename)}:{line_of(lock.made_in, lock.made_at)}"


def _look(thing: Any) -> str:
    for module in list(sys.modules.values())[:MOST_MODULES]:
        names = getattr(module, "__dict__", None) if type(module) is type(sys) else None
        file = names.get("__file__") if type(names) is dict else None
        if names is None or type(file) is not str or stacks.is_installed_file(file):
            continue
        for name, value in list(names.items()):
            if value is thing:
                return f"{name} of {stacks.shortened(file)}"
    return ""
