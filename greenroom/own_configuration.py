"""A team's own configuration of gunicorn, as `-c` names it: a path, `file:` and a path, or `python:` and a module."""

import importlib
import importlib.util
import os
import runpy
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import GreenroomError

GUNICORNS_DEFAULT = "./gunicorn.conf.py"
MODULE = "python:"
COMMAND_LINE_VARIABLE = "GUNICORN_CMD_ARGS"
# The sign of a configuration file that calls configure() itself.
OUR_MODULE = "greenroom.configuration"


def location(named: str, parser: Any, environ: Mapping[str, str]) -> str:
    """Where gunicorn would read its configuration: named on its command line, in GUNICORN_CMD_ARGS, the usual place.

    "" when there is none. Raises GreenroomError when the file that is named is not there.
    """
    if not named and (text := environ.get(COMMAND_LINE_VARIABLE, "")):
        named = parser.parse_args(shlex.split(text)).config or ""
    if not named:
        return GUNICORNS_DEFAULT if Path(GUNICORNS_DEFAULT).is_file() else ""
    if named.startswith(MODULE):
        return str(named)
    path = named.removeprefix("file:")
    if not Path(path).is_file():
        raise GreenroomError(f"there is no configuration file {path}; -c takes a path, or python: and a module's name")
    return path


def absolute(where: str) -> str:
    return where if where.startswith(MODULE) else str(Path(where).resolve())


def calls_configure(where: str) -> bool:
    """Whether it is made with our configure() already. A module is not looked into: its hooks say so."""
    return not where.startswith(MODULE) and OUR_MODULE in Path(where).read_text()


def read(where: str) -> Mapping[str, Any]:
    """Its names and their values. Raises GreenroomError when there is no such module; its own errors are passed on."""
    if not where.startswith(MODULE):
        return runpy.run_path(where)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    name = where.removeprefix(MODULE)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise
        raise GreenroomError(
            f"there is no module {name} for `-c {where}`: is it in {os.getcwd()} or PYTHONPATH?"
        ) from exc
    return vars(module)
