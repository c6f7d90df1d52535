"""pytest-xdist's processes: patched before their first line, and their talk with pytest in real threads."""

import os
from types import ModuleType
from typing import Any

from .. import early_hook
from ..on_import import when_imported
from ..replacements import Put, part
from ..waits.threads import start_thread


def prepare() -> None:
    """Have the processes that xdist starts begin with our hook, also those that take the place of crashed ones.

    Runs on: pytest's own process, which runs no tests then.
    """
    early_hook.put_first(os.environ)


def install() -> None:
    """Change execnet, over which xdist talks, as soon as it is imported. Runs on: the main thread, patched."""
    when_imported("execnet.gateway_base", _loaded)


def _loaded(_: ModuleType) -> None:
    _use_real_threads()


@part("execnet")
def _use_real_threads(put: Put) -> None:
    """It reads a pipe in a thread, without an end: as a greenlet that would stop all others."""
    from execnet.gateway_base import ThreadExecModel

    def start(self: Any, func: Any, args: Any = ()) -> None:
        start_thread(func, args)

    put(ThreadExecModel, "start", start)
