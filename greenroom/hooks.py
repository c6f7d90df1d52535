"""gunicorn's hooks, given what they need once and named in gunicorn.conf.py.

on_starting       refuse a worker class that the patching does not fit; start the companion, and again whenever it has
                  ended; take over the replacing of workers; start the ops process
on_reload         a new companion, so that new migrations are applied, then the old one is let go; replace the workers
pre_fork          share memory with the worker; a file for its stacks, should it be killed
post_fork         the companion's environment, before the application is imported; answer the ops process
post_worker_init  refuse functions to offload that don't exist; tell the application when its worker drains
child_exit        what is in that file, into the log
on_exit           stop the companion and the ops process
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import clock, finding, forking, patching, replacements, start_line, surroundings
from .chaining import in_each_turn
from .companion import Companion, is_running
from .draining import Draining
from .errors import CompanionError, SettingsError
from .gunicorns_names import in_force
from .gunicorns_parts import Arbiter, Worker
from .reloading import call_off_reload
from .settings import GREEN_WORKER_CLASSES, PLAIN_WORKER_CLASSES, Settings

if TYPE_CHECKING:
    from .ops.supervisor import Supervisor, Wanted
    from .worker.recycle import Fleet

logger = logging.getLogger("gunicorn.error")

EXIT_BAD_SETTINGS = 2
LONGEST_BACKOFF_SECONDS = 30.0
GREENROOM_WORKERS = (GREEN_WORKER_CLASSES["greenroom"], "greenroom.Worker")


@dataclass
class Running:
    """State of the arbiter between reloads. gunicorn runs its configuration file anew on HUP; this module stays."""

    settings: Settings | None = None
    is_configured: bool = False  # by greenroom.configuration; else gunicorn has a configuration of its own
    from_files: Mapping[str, str] = field(default_factory=dict)  # set in the environment by `.env` and `.flaskenv`
    companion: Companion | None = None
    fleet: "Fleet | None" = None
    ops: "Supervisor | None" = None
    is_reload_refused: bool = False
    refused_because: BaseException | None = None


running = Running()


def read_settings(environ: Mapping[str, str], check_command: Sequence[str] | None = None) -> Settings:
    """The settings in `environ`. At start-up wrong ones end the process; at a reload they change nothing.

    `check_command` is run when something is wrong here, to have the application's own problems listed as well.
    Runs on: arbiter.
    """
    running.is_reload_refused = False
    try:
        running.settings = Settings.read(environ)
    except SettingsError as exc:
        if running.settings is None:
            print(f"Error: {exc}", file=sys.stderr, flush=True)
            if check_command is not None:
                os.spawnve(os.P_WAIT, check_command[0], list(check_command), dict(os.environ))
            sys.exit(EXIT_BAD_SETTINGS)
        running.is_reload_refused, running.refused_because = True, exc
        logger.error("reload given up, the workers go on as they are. %s", exc)
    return running.settings


class Hooks:
    """The hooks of one server. `companion_command` None: the application needs no companion."""

    is_greenrooms = True

    def __init__(self, settings: Settings, companion_command: Sequence[str] | None, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.companion_command = companion_command
        self.environ = environ

    def on_starting(self, server: Arbiter) -> None:
        """Runs on: arbiter."""
        self.begin(server)
        keep_configuration(server)

    def begin(self, server: Arbiter) -> None:
        """Set up the parts that exist once for a server. Runs on: arbiter, before the first worker."""
        problem = unfit_worker_class(server.cfg.worker_class_str, is_patched=patching.is_patched())
        if problem:
            sys.exit(f"Error: {problem}")
        self.settings = in_force(self.settings, server.cfg)
        begin_anew_as_a_module(server)
        self._look_around(server)
        if self.companion_command is not None:
            try:
                running.companion = self._start_companion(server)
            except CompanionError as exc:
                sys.exit(f"Error: {exc}")
        if is_ours(server):
            replacements.announce(logger.warning, self.settings)
            running.fleet = self._fleet(server)
            running.ops = self._ops(server)
        if running.companion is not None:
            in_each_turn(server, CompanionWatch(lambda: self._start_companion(server)).look)

    def _look_around(self, server: Arbiter) -> None:
        """Say what is on and what is not, and what is missing here. Ends a start that can't succeed."""
        if problem := surroundings.no_temporary_folder() or surroundings.missing_certificate(server.cfg):
            sys.exit(f"Error: {problem}")
        has_listeners = bool(server.LISTENERS or {"GUNICORN_FD", "LISTEN_FDS"} & set(os.environ))
        for problem in [] if has_listeners else surroundings.useless_addresses(server.address):
            logger.error("%s", problem)
        if problem := surroundings.unfit_certificate(server.cfg):
            logger.error("%s", problem)
        if is_ours(server):
            start_line.say(logger, self.settings)
            for sentence in surroundings.shortcomings(self.settings, has_pidfd=patching.has_pidfd()):
                logger.warning("%s", sentence)

    def on_reload(self, server: Arbiter) -> None:
        """Runs on: arbiter. With wrong settings, or code that can't be prepared, the workers stay as they are."""
        self.settings = in_force(self.settings, server.cfg)
        if running.is_reload_refused:
            self._refuse(server, running.refused_because)
            return
        if self.companion_command is not None:
            old = running.companion
            try:
                running.companion = self._start_companion(server)
            except CompanionError as exc:
                logger.error("reload given up, the workers go on with the code they have: %s", exc)
                self._refuse(server, exc)
                return
            if old is not None:
                old.release()
        if running.ops is not None:
            running.ops.reload(self._wanted_ops(server))
        elif running.fleet is not None:
            running.ops = self._ops(server)
        if running.ops is not None:
            from .ops import endings

            endings.reloading(running.ops.socket_folder)
        if running.fleet is not None:
            running.fleet.begin_reload()

    def _refuse(self, server: Arbiter, because: BaseException | None) -> None:
        """Change nothing, and have the ops page say why."""
        call_off_reload(server)
        if running.ops is not None:
            from .ops import endings

            endings.reloading(running.ops.socket_folder, refused_because=because)

    def pre_fork(self, server: Arbiter, worker: Worker) -> None:
        """Runs on: arbiter."""
        if not is_ours(server):
            return
        if self.settings.tune_gc:
            from .worker.process import share_memory  # with it comes gevent

            import_for_workers()
            share_memory()
        if self.settings.insight:
            from .insight import lastwords

            lastwords.prepare(worker)

    def child_exit(self, server: Arbiter, worker: Worker) -> None:
        """Runs on: arbiter, once the worker has ended."""
        if hasattr(worker, "stacks_file"):
            from .insight import lastwords

            lastwords.tell(worker)

    def post_fork(self, server: Arbiter, worker: Worker) -> None:
        """Runs on: worker start-up."""
        worker.settings = self.settings
        if running.companion is not None:
            if patching.is_patched():
                forking.in_child(running.companion.leave_to_parent)
            os.environ.setdefault("PUBLIC_URL", public_url(server.address))
            os.environ.update(running.companion.environment)
        if patching.is_patched():
            from . import offload  # with it comes gevent's hub, which has no place in workers of other kinds

            offload.install(self.settings)
        if running.ops is not None and running.ops.wanted is not None:
            from .ops.worker_server import WorkerServer

            worker.worker_server = WorkerServer(worker, running.ops.socket_folder)
            worker.worker_server.start()

    def post_worker_init(self, worker: Worker) -> None:
        """Runs on: worker start-up."""
        if patching.is_patched():
            from . import offload

            offload.check(self.settings)
        worker.wsgi = Draining(worker.wsgi, lambda: not worker.alive)

    def on_exit(self, server: Arbiter) -> None:
        """Runs on: arbiter."""
        if running.companion is not None:
            if not is_running(running.companion.pid):
                self._tidy_up_after_companion(server)
            running.companion.stop()
        if running.ops is not None:
            running.ops.stop()

    def _ops(self, server: Arbiter) -> "Supervisor | None":
        wanted = self._wanted_ops(server)
        if wanted is None:
            return None
        from .ops import endings
        from .ops.supervisor import Supervisor
        from .worker.lifecycle import shared_board

        try:
            supervisor = Supervisor(wanted, shared_board().descriptor, (server.cfg.uid, server.cfg.gid))
        except OSError as exc:
            logger.warning("the ops process can't be started, the server goes on without it: %s", exc)
            return None
        in_each_turn(server, supervisor.look)
        endings.watch(server, supervisor.socket_folder)
        return supervisor

    def _wanted_ops(self, server: Arbiter) -> "Wanted | None":
        from .ops.supervisor import Wanted

        about = {
            "app": finding.shown(self.settings.wsgi_app),
            "bind": [_shown(address) for address in server.address],
            "arbiter": os.getpid(),
            "timeout_seconds": self.settings.timeout_seconds,
        }
        error_log = "" if server.cfg.errorlog in (None, "-") else os.path.abspath(server.cfg.errorlog)
        return Wanted.by(self.settings, about, error_log)

    @staticmethod
    def _fleet(server: Arbiter) -> "Fleet | None":
        # Imported here: it comes with gevent's worker, which has no place in an arbiter of other workers.
        from .worker.lifecycle import shared_board
        from .worker.recycle import Fleet

        fleet = Fleet(server, shared_board())
        return fleet if fleet.install() else None

    def _tidy_up_after_companion(self, server: Arbiter) -> None:
        """Start the companion once more: it was killed right before the end, and the new one ends what it left."""
        try:
            running.companion = self._start_companion(server)
        except CompanionError as exc:
            logger.error("the companion was killed, and what it has left could not be ended: %s", exc)

    def _start_companion(self, server: Arbiter) -> Companion:
        assert self.companion_command is not None
        environ = {"PUBLIC_URL": public_url(server.address), **os.environ}
        if self.environ.get("PUBLIC_URL"):
            environ["PUBLIC_URL"] = self.environ["PUBLIC_URL"]
        return Companion.start(self.companion_command, environ, self.settings.companion_timeout_seconds)


class CompanionWatch:
    """Starts the companion again when it has ended before its time. Runs on: arbiter, in each turn of its loop."""

    def __init__(self, start: Callable[[], Companion], now: Callable[[], float] = clock.now) -> None:
        self.start = start
        self.now = now
        self.failures = 0
        self.not_before = 0.0

    def look(self) -> None:
        """Waits until the companion is ready: workers that are started meanwhile would need what it gives."""
        old = running.companion
        if old is None or is_running(old.pid) or self.now() < self.not_before:
            return
        logger.warning("the companion (pid %s) has ended, it is started again", old.pid)
        try:
            running.companion = self.start()
        except (CompanionError, OSError) as exc:
            wait_seconds = min(LONGEST_BACKOFF_SECONDS, 2.0**self.failures)
            self.failures += 1
            self.not_before = self.now() + wait_seconds
            logger.error("the companion can't be started (%s); the next attempt is in %g s", exc, wait_seconds)
            return
        self.failures = 0
        old.release()


def import_for_workers() -> None:
    """Import what each worker will need, once for all of them: a module that a worker imports is its own memory.

    Measured with three workers that say hello: 10.1 MB of each are its own, and 10.4 without this. Runs on: arbiter.
    """
    if patching.is_patched():
        from . import offload  # noqa: F401  # see post_fork
    if running.ops is not None:
        from .ops import worker_server  # noqa: F401


def keep_configuration(server: Arbiter, afterwards: Callable[[], object] = lambda: None) -> None:
    """Have a reload whose configuration can't be read change nothing; gunicorn would end the server.

    `afterwards` is called when it was read. Runs on: arbiter.
    """
    app = server.app
    plain = app.reload

    def reload() -> None:
        before = app.cfg
        try:
            plain()
        except SystemExit as exc:  # gunicorn has said what is wrong
            app.cfg = before
            running.is_reload_refused, running.refused_because = True, exc.__context__
            logger.error("reload given up, gunicorn's configuration can't be read: the workers go on as they are")
            return
        afterwards()

    replacements.put("gunicorn", (app, "reload", reload))


def begin_anew_as_a_module(server: Arbiter) -> None:
    """Have `python -m gunicorn` begin anew (USR2) in the same way.

    gunicorn would run its own file: Python then looks for modules in gunicorn's folder first, and finds another `http`
    there. Runs on: arbiter.
    """
    context: dict[str, list[str]] = getattr(server, "START_CTX", {})
    arguments = context.get("args", [])
    if len(arguments) > 1 and arguments[1] == sys.argv[0] and Path(arguments[1]).name == "__main__.py":
        context["args"] = [arguments[0], "-m", Path(arguments[1]).parent.name, *arguments[2:]]


def is_ours(server: Arbiter) -> bool:
    """Whether this server's workers are GreenWorkers, under whatever name; a team may have a class of its own."""
    worker_class = getattr(server, "worker_class", None)
    return bool(getattr(worker_class, "is_greenroom", False)) or server.cfg.worker_class_str in GREENROOM_WORKERS


def unfit_worker_class(worker_class: str, *, is_patched: bool) -> str:
    """Return the reason why `worker_class` (gunicorn's name for it) can't run in this process; "" if it can.

    The class can be overridden on the command line (`-k`), after the configuration file has patched or not.
    """
    for name, uri in {**GREEN_WORKER_CLASSES, **PLAIN_WORKER_CLASSES}.items():
        if worker_class == uri and is_patched != (name in GREEN_WORKER_CLASSES):
            state = "is patched" if is_patched else "is not patched"
            return (
                f"this process {state}, which does not fit worker class {name}: "
                f"set GREENROOM_WORKER_CLASS={name} instead of -k"
            )
    return ""


def _shown(address: Any) -> str:
    if not isinstance(address, tuple):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def public_url(addresses: Sequence[Any]) -> str:
    """The first TCP address listened on, as a URL that works on this machine."""
    for address in addresses:
        if isinstance(address, tuple):
            host, port = address[0], address[1]
            host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
            return f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"
    return "http://127.0.0.1:8000"
