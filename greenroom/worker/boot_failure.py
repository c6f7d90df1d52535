"""An application that can't be imported: one sentence with its innermost line, then its own traceback without ours."""

import importlib
import os
import sysconfig
import traceback
import zlib
from importlib.util import find_spec
from pathlib import Path

from gunicorn.errors import AppImportError

from .. import finding
from ..errors import GreenroomError

# Packages whose frames say nothing about the application.
SERVERS = ("greenroom", "gunicorn", "gevent", "greenlet")
# Their messages are whole sentences for the person that starts the server.
SENTENCES = (GreenroomError, AppImportError)


def explain(exc: BaseException) -> str:
    """The sentence and, where there is code of the application's in it, the traceback."""
    if isinstance(exc, SENTENCES):
        is_gunicorns = isinstance(exc, AppImportError)  # it says what failed, and not what to change
        advice = " Name the application as `module:name` or `module:factory()`." if is_gunicorns else ""
        return f"the application can't be served: {exc}{advice}"
    told = traceback.TracebackException.from_exception(exc)
    _leave_servers_out(told, _folders())
    where = _innermost(exc, told)
    lines = ["the application can't be imported: " + "".join(told.format_exception_only()).strip().splitlines()[-1]]
    if where:
        lines[0] += f" at {where}"
    if isinstance(exc, ModuleNotFoundError):
        lines[0] += f". {finding.elsewhere(exc.name or '')}"
    if told.stack or where:
        lines.append("".join(told.format()).rstrip())
    return "\n".join(lines)


def cause(text: str) -> float:
    """A number by which two failures of the same kind are known, for the scoreboard; never 0."""
    return float(zlib.crc32(text.encode()) + 1)


def _innermost(exc: BaseException, told: traceback.TracebackException) -> str:
    """The last line of the application's own; "" when none of its lines ran."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}, line {exc.lineno}"
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    for frame in reversed(told.stack):
        folders = [str(folder) for folder in Path(frame.filename).parents]
        if not frame.filename.startswith("<") and not libraries.intersection(folders):
            return f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    return ""


def _leave_servers_out(told: traceback.TracebackException | None, folders: tuple[str, ...]) -> None:
    while told is not None:
        frames = [frame for frame in told.stack if not frame.filename.startswith((*folders, "<frozen importlib"))]
        told.stack = traceback.StackSummary.from_list(frames)
        _leave_servers_out(told.__cause__, folders)
        told = told.__context__


def _folders() -> tuple[str, ...]:
    found = [f"{Path(importlib.__file__).parent}{os.sep}"]
    for package in SERVERS:
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations is not None:
            found += [f"{folder}{os.sep}" for folder in spec.submodule_search_locations]
    return tuple(found)
