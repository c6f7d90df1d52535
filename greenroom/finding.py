"""Finding the application as `flask run` does, for those who name no `module:name`.

gunicorn is given `greenroom.finding:application('shop')`, so the search happens where the application is imported: in a
worker, anew after each reload.
"""

import inspect
import os
import sys
from pathlib import Path
from wsgiref.types import WSGIApplication

from . import importing
from .errors import AppNotFound

# Names to look for in a module without Flask; with Flask its own search is asked, which knows more.
USUAL_NAMES = ("app", "application")


def uri(name: str) -> str:
    """Return gunicorn's argument for `name`: itself if it says which object to serve, else the search for it."""
    module, colon, _ = name.partition(":")
    is_python_path = all(part.isidentifier() for part in module.split("."))
    return name if colon and is_python_path else flasks_uri(name)


def flasks_uri(name: str) -> str:
    """gunicorn's argument for what FLASK_APP says: Flask calls a factory that is named without its parentheses."""
    return f"greenroom.finding:application({name!r})"


def refuse_factory(found: object, uri: str) -> None:
    """Raise AppNotFound where `found` makes an application and is none: it would fail in each request.

    A plain function is none if it can't be called with two arguments, or needs none of them.
    """
    if not inspect.isfunction(found):
        return
    signature = inspect.signature(found, follow_wrapped=False)
    try:
        signature.bind({}, None)
    except TypeError:
        is_application = False
    else:
        is_application = any(
            each.default is each.empty and each.kind is not each.VAR_KEYWORD for each in signature.parameters.values()
        )
    if not is_application:
        raise AppNotFound(
            f"{shown(uri)} is a function that can't be called with environ and start_response; if it makes the "
            f"application, say so: {shown(uri)}()"
        )


def elsewhere(module: str) -> str:
    """Advice for a module that was not found."""
    top = module.partition(".")[0]
    if any((Path("src") / name).exists() for name in (top, f"{top}.py")):
        return f"It is in src: add `--pythonpath src`, or install the project (`pip install -e .`) in {sys.prefix}"
    return f"Install it in this environment ({sys.prefix}), or start in its folder (this is {os.getcwd()})"


def shown(uri: str) -> str:
    """Return the application's name as it was given, for people; how it was found, where none was given."""
    start = f"{__name__}:application("
    if not uri.startswith(start):
        return uri
    return uri.removeprefix(start).removesuffix(")").strip("'\"") or "found as flask run finds it"


def application(name: str = "") -> WSGIApplication:
    """The WSGI application that `name` (a module, a file, or nothing) means to Flask.

    Without a name: FLASK_APP, wsgi.py, app.py. Raises AppNotFound, which says what was looked for.
    """
    try:
        from flask.cli import NoAppException, ScriptInfo
    except ImportError:
        return _usual(name)
    try:
        return ScriptInfo(app_import_path=name or None).load_app()
    except NoAppException as exc:
        problem = exc
    said = " ".join(str(problem).split())
    cause = problem.__context__
    if said.startswith("While importing") and isinstance(cause, ImportError) and cause.__traceback__ is not None:
        raise cause.with_traceback(cause.__traceback__.tb_next)  # the first frame is Flask's
    if name and ":" not in name and problem.__cause__ is None:
        try:  # an application of another framework
            return _usual(name)
        except AppNotFound:
            pass
    if said.startswith("Could not import"):
        said += f" {elsewhere(Path(name.partition(':')[0]).stem)}"
    raise AppNotFound(f"no application to serve: {said}") from problem


def _usual(name: str) -> WSGIApplication:
    if not name:
        raise AppNotFound("no application to serve: name it, as in `greenroom serve shop:app`")
    problems = []
    for usual in USUAL_NAMES:
        try:
            return importing.load(f"{name}:{usual}")
        except AppNotFound as exc:
            problems.append(str(exc))
    raise AppNotFound("; ".join(problems))
