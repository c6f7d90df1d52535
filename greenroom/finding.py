"""Finding the application as `flask run` does, for those who name no `module:name`.

gunicorn is given `greenroom.finding:application('shop')`, so the search happens where the application is imported: in a
worker, anew after each reload.
"""

from wsgiref.types import WSGIApplication

from . import importing
from .errors import AppNotFound

# Names to look for in a module without Flask; with Flask its own search is asked, which knows more.
USUAL_NAMES = ("app", "application")


def uri(name: str) -> str:
    """Return gunicorn's argument for `name`: itself if it says which object to serve, else the search for it."""
    module, colon, _ = name.partition(":")
    is_python_path = all(part.isidentifier() for part in module.split("."))
    return name if colon and is_python_path else f"greenroom.finding:application({name!r})"


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
        if name and ":" not in name and exc.__cause__ is None:
            try:  # an application of another framework
                return _usual(name)
            except AppNotFound:
                pass
        raise AppNotFound(f"no application to serve: {' '.join(str(exc).split())}") from exc


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
