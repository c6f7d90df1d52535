"""`gunicorn -k greenroom.Worker`: gunicorn under a configuration of a team's own, with all that ours gives it.

The steps of gunicorn with a worker class before the first worker, and ours at each:

    GreenWorker.setup()         before it imports anything of the application's: read the settings, patch this process
    GreenWorker.check_config()  it has its listeners: have the hook when_ready run `take_part`, before the team's own
    when_ready                  what on_starting does under our configuration; our other hooks go before the team's
    a reload                    the same with the configuration that gunicorn has read anew

Under our configuration all this is done already, and each of these does nothing.
"""

import logging
import os
import queue
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from . import patching
from .chaining import HOOK_NAMES, chained, one_after_the_other
from .errors import PatchedTooLate
from .gunicorns_names import take_ours
from .gunicorns_parts import Arbiter, Config
from .hooks import Hooks, keep_configuration, read_settings, running
from .settings import read_env_files

logger = logging.getLogger("gunicorn.error")


def prepare_arbiter() -> None:
    """Patch the process that imports the application or forks the workers. Wrong settings end it.

    Runs on: arbiter, whenever gunicorn has read its configuration.
    """
    if running.is_configured or running.settings is not None:
        return
    settings = replace(read_settings(environment()), worker_class="greenroom")
    try:
        patching.patch(settings)
    except PatchedTooLate as exc:
        sys.exit(f"Error: {exc}")


def join(cfg: Config) -> None:
    """Runs on: arbiter, once, when it listens."""
    if not running.is_configured:
        cfg.set("when_ready", one_after_the_other(take_part, cfg.when_ready))


def take_part(server: Arbiter) -> None:
    """Runs on: arbiter, before the first worker."""
    hooks = put_hooks(server)
    _wait_in_loop(server)
    hooks.begin(server)
    server.init_signals()  # gunicorn registered its own handler before there was ours
    keep_configuration(server, lambda: put_hooks(server))


def _wait_in_loop(server: Arbiter) -> None:
    """Have the arbiter wait for signals in gevent's loop, where it learns that a worker has ended.

    Its queue was made before this process was patched. gunicorn 23 has a list, and waits with `select`.
    """
    if isinstance(server.SIG_QUEUE, list):
        return
    before, server.SIG_QUEUE = server.SIG_QUEUE, queue.SimpleQueue()
    while not before.empty():
        server.SIG_QUEUE.put_nowait(before.get_nowait())


def put_hooks(server: Arbiter) -> Hooks:
    """Read our settings, tell gunicorn of them, and put our hooks before those of its present configuration."""
    environ = environment()
    settings = replace(read_settings(environ), worker_class="greenroom")
    cfg = server.app.cfg
    ignored = take_ours(settings, environ, cfg)
    if ignored:
        logger.warning(
            "this gunicorn has a configuration of its own, where these do not count: %s. Set them there, or start with "
            "`greenroom serve`",
            ", ".join(ignored),
        )
    hooks = Hooks(replace(settings, wsgi_app=getattr(server.app, "app_uri", None) or settings.wsgi_app), None, environ)
    ours: dict[str, Callable[..., None]] = {name: getattr(hooks, name) for name in HOOK_NAMES if name != "on_starting"}
    for name, hook in chained(ours, {name: getattr(cfg, name) for name in ours}).items():
        cfg.set(name, hook)
    return hooks


def environment() -> dict[str, str]:
    """The process environment over `.env` and `.flaskenv` in gunicorn's folder."""
    return {**read_env_files(Path.cwd()), **os.environ}
