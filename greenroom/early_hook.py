"""Patching before anything else of a program: also before an agent that comes in through `sitecustomize`.

    greenroom run -- newrelic-admin run-program gunicorn -k greenroom.Worker shop:app

`greenroom run` puts the folder `early` first on PYTHONPATH and becomes the program. Python imports the sitecustomize.py
there, which ends up here:

    1. the folder is taken off PYTHONPATH again, so that programs that this one starts know nothing of it
    2. this process is patched
    3. the sitecustomize that would have been imported, the agent's for example, is imported

ddtrace wants to be there first, and leaves a process that can be patched later: 2. is left out before it.

An agent's launcher puts its own folder before ours and becomes the program it was given. So a process that executes
another program in its own place (exec) puts ours first once more; what is started as a child does not get it.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import replace
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from . import agents, replacements
from .errors import GreenroomError
from .settings import Settings, read_env_files

FOLDER = Path(__file__).resolve().parent / "early"
EXIT_BAD_SETTINGS = 2
NAME = "sitecustomize"
PATH_NAME = "PYTHONPATH"


def put_first(environ: MutableMapping[str, str], *folders: str) -> None:
    """Have Python look in our folder first, then in `folders`, then where it does."""
    rest = [folder for folder in _folders(environ) if folder not in (str(FOLDER), *folders)]
    environ[PATH_NAME] = os.pathsep.join([str(FOLDER), *folders, *rest])


def take_off(environ: MutableMapping[str, str]) -> None:
    rest = [folder for folder in _folders(environ) if folder != str(FOLDER)]
    if rest:
        environ[PATH_NAME] = os.pathsep.join(rest)
    else:
        environ.pop(PATH_NAME, None)


def begin(folder: Path = FOLDER) -> None:
    """Runs on: the main thread of a program, before its first line."""
    take_off(os.environ)
    sys.path[:] = [each for each in sys.path if each != str(folder)]
    spec = PathFinder.find_spec(NAME, sys.path)
    if spec is None or not agents.wants_to_be_first(spec.origin):
        try:
            _patch({**read_env_files(Path.cwd()), **os.environ})
        except GreenroomError as exc:
            print(f"Error: {exc}", file=sys.stderr, flush=True)
            os._exit(EXIT_BAD_SETTINGS)  # Python goes on after any exception here
    pass_on(os.getpid())
    import_next(spec)


def _patch(environ: Mapping[str, str]) -> None:
    settings = Settings.read(environ)
    if settings.is_green:
        from . import patching

        patching.patch(replace(settings, worker_class="greenroom"))


def pass_on(pid: int) -> None:
    """Have the program that process `pid` becomes begin here as well."""

    def is_to_be_ours(arguments: Iterable[Any]) -> bool:
        # gunicorn becomes itself anew in a child (USR2); as a module where it was started so.
        words = list(map(str, arguments))
        return os.getpid() == pid or words[1:] == sys.argv or words[1:] == ["-m", "gunicorn", *sys.argv[1:]]

    execv: Callable[..., Any] = os.execv
    execve: Callable[..., Any] = os.execve

    def execv_with_ours(path: Any, arguments: Any, /) -> None:
        if is_to_be_ours(arguments):
            put_first(os.environ)
        try:
            execv(path, arguments)
        finally:
            take_off(os.environ)  # there is no such program: this one goes on

    def execve_with_ours(path: Any, arguments: Any, env: Any) -> None:
        if is_to_be_ours(arguments):
            env = dict(env)
            put_first(env)
        execve(path, arguments, env)

    replacements.put("early", (os, "execv", execv_with_ours), (os, "execve", execve_with_ours))


def import_next(spec: ModuleSpec | None) -> None:
    """Import the sitecustomize that Python would have imported without ours; nothing where there is none."""
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


def _folders(environ: Mapping[str, str]) -> list[str]:
    return [folder for folder in environ.get(PATH_NAME, "").split(os.pathsep) if folder]
