"""The configuration for gunicorn. Every value comes from the settings; each decision has its reason beside it.

`greenroom/gunicorn_conf.py` is the file that gunicorn reads under `greenroom serve`. A gunicorn.conf.py of your own can
begin with the same two calls, and change what it likes below them:

    from greenroom.configuration import configure
    globals().update(configure())
"""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import importing, patching
from .chaining import HOOK_NAMES
from .cores import usable_cores
from .errors import PatchedTooLate
from .hooks import Hooks, read_settings, running
from .settings import read_env_files, read_environment
from .surroundings import memory_folder


def configure(
    environ: Mapping[str, str] | None = None,
    *,
    wsgi_app: str = "",
    check_command: Sequence[str] | None = None,
    companion_command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Patch this process as the settings say; returns gunicorn's settings and hooks by their names.

    `environ` None: the process environment over `.env` in the working directory. `wsgi_app` is served where gunicorn's
    command line names nothing else. `check_command` is run when a setting is wrong, to have the application's own
    problems listed as well; `companion_command` is started before the workers (see companion.py), unless
    GREENROOM_COMPANION=no.

    Wrong settings end the process at start-up; at a reload they are logged and change nothing.
    Runs on: arbiter, before anything that holds sockets, locks or threads is imported.
    """
    environ = read_environment(Path(".env")) if environ is None else environ
    if wsgi_app:
        environ = {**environ, "WSGI_APP": wsgi_app}
    running.is_configured = True
    settings = read_settings(environ, check_command)
    # The worker classes that are there to compare with stay unpatched.
    if settings.is_green:
        try:
            patching.patch(settings)
        except PatchedTooLate as exc:
            sys.exit(f"Error: {exc}")
    hooks = Hooks(settings, companion_command if settings.companion else None, environ)
    values: dict[str, Any] = {
        "bind": [address.strip() for address in settings.bind.split(",")],
        "workers": settings.web_concurrency or usable_cores(),
        "worker_class": settings.worker_class_uri,
        "worker_connections": settings.worker_connections,
        "threads": settings.threads if settings.worker_class == "gthread" else 1,
        "backlog": settings.backlog,
        "timeout": settings.timeout_seconds,
        "graceful_timeout": settings.graceful_timeout_seconds,
        "keepalive": settings.keepalive_seconds,
        "max_requests": settings.max_requests,
        "max_requests_jitter": settings.max_requests_jitter,
        "forwarded_allow_ips": settings.forwarded_allow_ips,
        "certfile": settings.tls_certificate or None,
        "keyfile": settings.tls_key or None,
        "loglevel": settings.log_level,
        "accesslog": "-" if settings.access_log else None,
        # One listener shared by all workers: with a listener each, a worker that is busy or gone strands the
        # connections the kernel already gave it (26 of 100 requests waited over a second behind one blocked worker;
        # with a shared one, none).
        "reuse_port": False,
        # The application is imported by each worker: a reload (HUP) then reads new code, and nothing is shared by
        # accident.
        "preload_app": False,
        # Two servers of one user would share the socket's default path; signals do all that it does.
        "control_socket_disable": True,
        # The heartbeat file in memory: on a busy disk touching it can block, and the arbiter takes the worker for dead.
        "worker_tmp_dir": memory_folder(),
    }
    if settings.wsgi_app:
        values["wsgi_app"] = settings.wsgi_app
    return {**values, **{name: getattr(hooks, name) for name in HOOK_NAMES}}


def patch_first() -> None:
    """Patch this process as the environment and `.env` say, at the top of a gunicorn.conf.py that imports clients.

    For `gunicorn -k greenroom.Worker`, which else patches when gunicorn has read that file. Safe to call again.
    """
    settings = read_settings({**read_env_files(Path.cwd()), **os.environ})
    patching.patch(dataclasses.replace(settings, worker_class="greenroom"))


def named_app(environ: Mapping[str, str]) -> str:
    """The application that somebody asked for: on gunicorn's command line, else in WSGI_APP; "" when nowhere.

    Folders of PYTHONPATH are searched before the working directory from then on.
    """
    named = app_of_command_line() or environ.get("WSGI_APP", "")
    if named:
        importing.prefer_pythonpath(environ, Path.cwd())
    return named


def app_of_command_line(arguments: Sequence[str] | None = None) -> str:
    """The application among gunicorn's arguments (None: this process's, if it is gunicorn); "" when none is there."""
    if arguments is None:
        if Path(sys.argv[0]).stem != "gunicorn" and Path(sys.argv[0]).parent.name != "gunicorn":
            return ""
        arguments = sys.argv[1:]
    from gunicorn.config import Config  # with it comes ssl, which is patched first where patching is wanted

    options, _ = Config().parser().parse_known_args(list(arguments))
    return str(options.args[0]) if options.args else ""
