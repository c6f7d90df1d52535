"""Finding the application to serve among all that sys.path offers."""

import ast
import importlib
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from wsgiref.types import WSGIApplication

from .errors import AppNotFound


def prefer_pythonpath(environ: Mapping[str, str], working_directory: Path) -> None:
    """Look in PYTHONPATH before the working directory, as Python itself does and gunicorn does not.

    So `WSGI_APP=app:app PYTHONPATH=/srv/shop gunicorn` serves the shop's package `app` and not the one that lies here.
    Folders that only `.env` names were not known when Python started, and are added.
    """
    named = [str(Path(folder).resolve()) for folder in environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    known = {_resolved(folder) for folder in sys.path}
    sys.path[:0] = [folder for folder in named if folder not in known]
    here = str(working_directory.resolve())
    last = max((index for index, folder in enumerate(sys.path) if _resolved(folder) in named), default=-1)
    if last < 0 or here in named:
        return
    front = [folder for folder in sys.path[: last + 1] if _resolved(folder) != here]
    if len(front) <= last:  # the working directory did stand before them
        sys.path[: last + 1] = [*front, here]


def package_folder(wsgi_app: str) -> Path | None:
    """The folder that the application's top-level module would be imported from; None when it is not found.

    Imports nothing.
    """
    spec = find_spec(wsgi_app.partition(":")[0].partition(".")[0])
    return Path(spec.origin).resolve().parent if spec is not None and spec.origin else None


def load(wsgi_app: str) -> WSGIApplication:
    """The application that `module:name` or `module:factory()` names. Raises AppNotFound saying what is missing."""
    module_name, _, expression = wsgi_app.partition(":")
    name, is_factory = (expression or "application").removesuffix("()"), expression.endswith("()")
    try:
        parsed = ast.parse(name, mode="eval").body
    except SyntaxError:
        parsed = ast.Constant(None)
    if not isinstance(parsed, ast.Name):
        raise AppNotFound(f"WSGI_APP={wsgi_app}: {name!r} is neither a name nor a call without arguments")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not (module_name + ".").startswith(exc.name + "."):
            raise
        raise AppNotFound(f"WSGI_APP={wsgi_app}: there is no module {exc.name}; is PYTHONPATH right?") from exc
    if not hasattr(module, name):
        raise AppNotFound(f"WSGI_APP={wsgi_app}: {module_name} has no {name}")
    found = getattr(module, name)
    application: WSGIApplication = found() if is_factory else found
    if not callable(application):
        raise AppNotFound(f"WSGI_APP={wsgi_app}: {expression} is not a WSGI application, it can't be called")
    return application


def _resolved(folder: str) -> str:
    return str(Path(folder or ".").resolve())
