"""Agents that instrument a program from outside: how to know that one is at work, and where its hook lies.

They come in through a `sitecustomize` of theirs, before the program's first line, and import what patching replaces.
"""

import sys
from pathlib import Path
from types import ModuleType

# Loaded only where the agent's own launcher has started the program.
LAUNCHED = {
    "opentelemetry-instrument": "opentelemetry.instrumentation.auto_instrumentation",
    "newrelic-admin run-program": "newrelic.bootstrap",
    "ddtrace-run": "ddtrace.bootstrap",
}
# This one wants to be there before anything is patched, and makes the process as it was before it came.
WANTS_TO_BE_FIRST = "ddtrace"


def wants_to_be_first(hook: str | None) -> bool:
    """Whether the sitecustomize in the file `hook` is of an agent that has to be imported before patching."""
    return hook is not None and WANTS_TO_BE_FIRST in Path(hook).parts


def launcher() -> str:
    """The command of the agent that has started this program; "" when there is none."""
    for command, module in LAUNCHED.items():
        package = module.partition(".")[0]
        if module in sys.modules or package in _hook_folder().split("/"):
            return command
    return ""


def folder() -> str:
    """The folder of the agent's sitecustomize; "" when no agent is known to be at work."""
    command = launcher()
    module = sys.modules.get(LAUNCHED.get(command, ""))
    if module is not None and module.__spec__ is not None and module.__spec__.submodule_search_locations:
        return str(next(iter(module.__spec__.submodule_search_locations)))
    return _hook_folder() if command else ""


def _hook_folder() -> str:
    module: ModuleType | None = sys.modules.get("sitecustomize")
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve().parent) if file else ""
