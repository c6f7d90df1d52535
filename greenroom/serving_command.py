"""`greenroom serve`: gunicorn with our configuration, patched first; where gunicorn can't run, gevent's own server.

    greenroom serve                        what FLASK_APP, wsgi.py or app.py say, as `flask run` finds it
    greenroom serve shop:app --workers 4   what gunicorn takes, with all its options
    greenroom serve --pywsgi shop:app      gevent's WSGI server, one process

`.env` and `.flaskenv` are read as `flask run` reads them. A gunicorn.conf.py in this folder, or one named with -c,
counts over ours; its hooks run beside ours. One that calls greenroom.configuration.configure() is used as it is.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from . import agents, early_hook, own_configuration
from .errors import AppNotFound, GreenroomError, SettingsError
from .finding import flasks_uri, uri
from .settings import read_env_files

CONFIGURATION = Path(__file__).with_name("gunicorn_conf.py")
# Where gunicorn_conf.py finds the team's own configuration file. Not a setting: this command sets it.
OWN_CONFIGURATION = "_GREENROOM_OWN_CONFIGURATION"
PYWSGI = "--pywsgi"


@dataclass(frozen=True)
class Request:
    """The request of the command line. `arguments` are gunicorn's, without the application and the configuration."""

    app: str
    own_configuration: str
    arguments: tuple[str, ...]
    bind: tuple[str, ...]
    paste: str = ""  # a file of PasteDeploy names the application


def run(arguments: Sequence[str]) -> int:
    """Serve; on success this process becomes gunicorn. Raises GreenroomError."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip() + "\n\ngunicorn's options are listed by `gunicorn --help`.")
        return 0
    environ = {**read_env_files(Path.cwd()), **os.environ}
    is_pywsgi = PYWSGI in arguments or sys.platform == "win32"
    request = understood([argument for argument in arguments if argument != PYWSGI])
    if request.paste:
        if is_pywsgi:
            raise GreenroomError("gevent's own server reads no file of PasteDeploy: leave --paste out")
        _become_gunicorn("", request)
    app = uri(name) if (name := request.app or environ.get("WSGI_APP", "")) else _flasks(environ)
    if is_pywsgi:
        return _serve_with_pywsgi(app, request, environ)
    _become_gunicorn(app, request)


def understood(arguments: Sequence[str]) -> Request:
    """gunicorn's own parser says what is the application, what the configuration."""
    try:
        from gunicorn.config import Config
    except ValueError as exc:  # gunicorn reads this variable while it is imported
        given = os.environ.get("WEB_CONCURRENCY", "")
        raise SettingsError(
            [f"WEB_CONCURRENCY must be a whole number (got {given!r}); unset it for one worker per core"]
        ) from exc

    parser = Config(usage="%(prog)s [gunicorn's options] [module:name]", prog="greenroom serve").parser()
    options = parser.parse_args(list(arguments))
    rest = list(arguments)
    if options.args:
        rest.remove(options.args[0])
    if options.config:
        rest = _without_option(rest, ("-c", "--config"), options.config)
    own = own_configuration.location(options.config or "", parser, os.environ)
    app = options.args[0] if options.args else ""
    return Request(app, own, tuple(rest), tuple(options.bind or ()), options.paste or "")


def _flasks(environ: Mapping[str, str]) -> str:
    return flasks_uri(environ.get("FLASK_APP") or app_of_folder(Path.cwd()))


def app_of_folder(folder: Path) -> str:
    """The module that `flask run` would take here. Raises AppNotFound, which says what was looked for."""
    for module in ("wsgi", "app"):
        if (folder / f"{module}.py").is_file() or (folder / module / "__init__.py").is_file():
            return module
    raise AppNotFound(
        f"no application to serve: no argument names one, WSGI_APP and FLASK_APP are not set, and there is neither "
        f"wsgi.py nor app.py in {folder}. Name it: `greenroom serve shop:app`"
    )


def _become_gunicorn(app: str, request: Request) -> NoReturn:
    child = dict(os.environ)
    configuration, named = str(CONFIGURATION), [app] if app else []
    if request.own_configuration:
        own = own_configuration.absolute(request.own_configuration)
        if own_configuration.calls_configure(own):
            configuration = own  # it is ours already, and knows what it serves
            named = [uri(request.app)] if request.app else []
        else:
            child[OWN_CONFIGURATION] = own
    if agents.launcher():  # it is in this process; in gunicorn it comes again, after patching
        early_hook.put_first(child, *filter(None, [agents.folder()]))
    command = [sys.executable, "-m", "gunicorn", "-c", configuration, *request.arguments, *named]
    os.execve(command[0], command, child)


def _serve_with_pywsgi(app: str, request: Request, environ: Mapping[str, str]) -> int:
    import dataclasses

    from . import importing, patching
    from .settings import Settings, set_from_files

    if request.own_configuration and request.own_configuration != own_configuration.GUNICORNS_DEFAULT:
        raise GreenroomError("gevent's own server reads no gunicorn configuration: leave -c out")
    set_from_files(os.environ, read_env_files(Path.cwd()), {})
    settings = Settings.read({**environ, "WSGI_APP": app})
    if request.bind:
        settings = dataclasses.replace(settings, bind=",".join(request.bind))
    importing.prefer_pythonpath(environ, Path.cwd())
    patching.patch(settings)
    # Imported only now: it is made of sockets.
    from .serve import serve

    serve(settings)
    return 0


def _without_option(arguments: list[str], names: tuple[str, ...], value: str) -> list[str]:
    """`arguments` without `-c value`, `-cvalue`, `--config value` or `--config=value`."""
    rest: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in names:
            skip = True
        elif argument not in (f"{names[0]}{value}", *(f"{name}={value}" for name in names)):
            rest.append(argument)
    return rest
