"""Imports the application and writes down what happened: `python -m greenroom.doctor.inside.importing ANSWER APP`.

`_GREENROOM_DOCTOR_PATCHED=1` patches first, as a worker does. The answer is JSON in the file ANSWER: standard output
belongs to the application.
"""

import contextlib
import faulthandler
import gc
import importlib
import inspect
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import redaction
from ..queued import queued_seconds
from ..shapes import Engine
from . import connecting, quarantine
from .lines import library_between, own_line, own_stack, shown
from .routes import routes_of

Seen = list[dict[str, Any]]
MOST_EVENTS = 200
TOO_LATE = "too late to patch: what was imported before goes on blocking the whole worker"


def main(arguments: list[str]) -> int:
    answer_path, app = arguments[:2]
    lazily = json.loads(arguments[2]) if len(arguments) > 2 else []
    seconds = float(os.environ.get("_GREENROOM_DOCTOR_SECONDS", "20"))
    with open(answer_path + ".stack", "w") as stack_file:
        # Where C code keeps the GIL no thread of Python's can tell.
        faulthandler.dump_traceback_later(seconds + 1.0, exit=True, file=stack_file)
        watch_own_line(stack_file, seconds)
        answer = examine(app, lazily, is_patched=os.environ.get("_GREENROOM_DOCTOR_PATCHED") == "1")
        Path(answer_path + ".part").write_text(json.dumps(answer, default=str))
        Path(answer_path + ".part").replace(answer_path)
        faulthandler.cancel_dump_traceback_later()
    # Threads of the application's, and what it registered for the exit, are not waited for.
    os._exit(0)


def watch_own_line(stack_file: Any, seconds: float) -> None:
    """Write down where the import is after so long, and end. Runs on: a real thread, also when all is patched.

    A greenlet that waits stands still, and its frames can be looked at; the thread's own are then the hub's.
    """
    import _thread
    import threading

    import greenlet

    main_greenlet, main_ident, sleep = greenlet.getcurrent(), threading.get_ident(), time.sleep

    def watch() -> None:
        sleep(seconds)
        frame = main_greenlet.gr_frame or sys._current_frames().get(main_ident)
        stack_file.write(
            f"Timeout\nQueued {queued_seconds(os.getpid()):.1f}\n"
            + "".join(f'File "{place}\n' for place in _quoted(frame))
        )
        stack_file.flush()
        os._exit(1)

    _thread.start_new_thread(watch, ())


def _quoted(frame: Any) -> list[str]:
    found: list[str] = []
    while frame is not None and len(found) < 200:
        found.append(f'{frame.f_code.co_filename}", line {frame.f_lineno}')
        frame = frame.f_back
    return found


def examine(app: str, lazily: list[str], *, is_patched: bool) -> dict[str, Any]:
    sys.argv = ["gunicorn", app]
    sys.path.insert(0, os.getcwd())
    answer: dict[str, Any] = {"error": "", "events": [], "holders": []}
    if is_patched:
        from ... import patching, too_late
        from ...errors import PatchedTooLate

        if not patching.is_patched():
            answer["holders"] = [one for one in too_late.unpatched_holders() if "greenroom" not in one]
            try:
                patching.patch(_settings())
            except PatchedTooLate:
                answer["error"], answer["advice"] = TOO_LATE, too_late.advice()
                return answer
            except Exception as exc:
                answer["error"] = _said(exc)
                return answer
    kept = quarantine.from_environment()
    if kept is not None:
        kept.install()
    events: Seen = answer["events"]
    recorder = Recorder(events)
    recorder.install()
    memory, began, queued = rss_mb(), time.perf_counter(), queued_seconds(os.getpid())
    application: Any = None
    try:
        application = load(app)
        if is_asgi(application):
            answer["error"] = f"{app} is an ASGI application, and Greenroom serves WSGI"
            answer["is_asgi"] = True
    except BaseException as exc:
        answer["error"] = _said(exc)
        answer["error_place"], answer["error_stack"] = _where(exc)
        answer["is_exit"] = not isinstance(exc, Exception)
    recorder.end()
    answer["seconds"] = max(0.0, time.perf_counter() - began - (queued_seconds(os.getpid()) - queued))
    answer["mb"] = rss_mb() - memory
    answer["threads"] = thread_names()
    answer["versions"] = untested_versions() if is_patched else []
    answer["files"] = own_files()
    if application is not None:
        with contextlib.suppress(Exception):
            answer["routes"] = routes_of(application)
        answer["files"] = own_files()  # with those that the list of routes has brought in: Django's views
        answer["engines"] = engines()
        answer["lazy"] = import_lazily(lazily)
    return answer


def _settings() -> Any:
    from ...settings import Settings, read_environment, unknown_names

    environ = read_environment(Path(".env"))
    wrong = unknown_names(environ)
    return Settings.read({} if wrong else environ)


def load(app: str) -> Any:
    from ... import finding, importing
    from ...settings import read_env_files

    for name, value in read_env_files(Path.cwd()).items():
        os.environ.setdefault(name, value)
    importing.prefer_pythonpath(os.environ, Path.cwd())
    module, colon, _ = app.partition(":")
    if not colon:
        return finding.application(app)
    if all(part.isidentifier() for part in module.split(".")):
        try:
            return importing.load(app)
        except Exception:
            if app.endswith(")") and not app.endswith("()"):
                from gunicorn.util import import_app

                return import_app(app)
            raise
    return finding.application(app)


def is_asgi(application: Any) -> bool:
    """Whether a call of it is a coroutine: FastAPI, Starlette, Quart, Connexion 3."""
    called = application if inspect.isroutine(application) else type(application).__call__
    return inspect.iscoroutinefunction(inspect.unwrap(called))


def _said(exc: BaseException) -> str:
    """An error in one line, without the statement and the values that a driver adds."""
    text = f"{type(exc).__name__}: {exc}"
    for beginning in redaction.DETAILS:
        text = text.partition(beginning)[0]
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return re.sub(r"([.:;,!?])\n|\n", lambda end: f"{end[1] or ';'} ", "\n".join(lines))[:500]


def _where(exc: BaseException) -> tuple[str, list[str]]:
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    tb = exc.__traceback__
    place = ""
    while tb is not None:
        file = tb.tb_frame.f_code.co_filename
        from .lines import is_own

        if is_own(file):
            place = f"{shown(file)}:{tb.tb_lineno}"
        tb = tb.tb_next
    if isinstance(exc, SyntaxError) and exc.filename and is_own(exc.filename):
        place = f"{shown(exc.filename)}:{exc.lineno}"
    return place, [f"{shown(frame.f_code.co_filename)}:{frame.f_lineno}" for frame in frames[-6:]]


class Recorder:
    """Notes what the import does that takes others: sleeps, sockets, threads, processes."""

    def __init__(self, events: Seen) -> None:
        self.events = events
        self.is_on = True
        self._is_in_hook = False
        self.importer = 0
        self.threads: list[Any] = []
        self.unwatch: Callable[[], None] = lambda: None

    def install(self) -> None:
        import threading

        self.threading = threading
        self.importer = threading.get_ident()  # of a greenlet, where threads are greenlets
        sys.addaudithook(self.hook)
        plain_sleep: Any = time.sleep

        def sleep(seconds: Any) -> None:
            self.note("sleep", "time.sleep", float(seconds))
            plain_sleep(seconds)

        time.sleep = sleep
        thread_class: Any = threading.Thread
        plain_start = thread_class.start

        def start(thread: threading.Thread) -> None:
            if self.is_on and self.threading.get_ident() == self.importer:
                self.threads.append((own_line(sys._getframe(1)), thread))
            self.note("thread", thread.name)
            plain_start(thread)

        thread_class.start = start
        self.unwatch = connecting.watch(lambda what: self.note("connect", what))

    def end(self) -> None:
        """The import is over: what it has started and is gone already is marked."""
        import psutil

        self.is_on = False
        self.unwatch()
        alive = {line for line, thread in self.threads if thread.is_alive()}
        with contextlib.suppress(psutil.Error):
            children = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
            for event in self.events:
                if event["kind"] == "process":
                    event["has_ended"] = not children
        for event in self.events:
            if event["kind"] == "thread":
                event["has_ended"] = event["line"] not in alive

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or self._is_in_hook:
            return
        self._is_in_hook = True
        try:
            with contextlib.suppress(Exception):
                if event == "socket.connect":
                    self._connects(arguments[1])
                elif event == "socket.getaddrinfo":
                    self.note("lookup", str(arguments[0]))
                elif event in ("os.fork", "os.forkpty"):
                    self.note("process", "os.fork")
                elif event in ("subprocess.Popen", "os.posix_spawn"):
                    self.note("process", os.path.basename(str(arguments[0])))
                elif event == "os.system":
                    self.note("process", "os.system")
                elif event == "socket.bind" and isinstance(arguments[1], tuple):
                    self.note("listen", "a socket")
        finally:
            self._is_in_hook = False

    def _connects(self, address: Any) -> None:
        if isinstance(address, tuple):
            self.note("connect", f"{address[0]}:{address[1]}")
        elif not os.fsdecode(address).startswith("/dev/"):  # not the machine's own log
            self.note("connect", os.fsdecode(address))

    def note(self, kind: str, what: str, seconds: float = 0.0) -> None:
        if not self.is_on or len(self.events) >= MOST_EVENTS:
            return
        if self.threading.get_ident() != self.importer:
            return  # a thread that the import has started
        line = own_line(sys._getframe(1))
        for event in self.events:
            if (event["kind"], event["line"]) == (kind, line):
                event["seconds"] += seconds
                event["count"] += 1
                return
        stack = own_stack(sys._getframe(1))
        self.events.append(
            {
                "kind": kind,
                "what": what[:80],
                "line": line,
                "seconds": seconds,
                "count": 1,
                "stack": stack,
                "by": library_between(sys._getframe(1)),
            }
        )


def rss_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss / 1e6)


def untested_versions() -> list[tuple[str, str, bool]]:
    """Of packages that are loaded: the name, the registry's sentence, and whether nothing works without it."""
    from ... import replacements

    found: dict[str, tuple[str, str, bool]] = {}
    for state in replacements.states():
        module = state.package.lower().replace("-", "_")
        sentence = state.reason if state.state == "on" else state.cause
        if sentence and state.version and (module in sys.modules or state.package == "gunicorn"):
            found.setdefault(sentence, (state.package, sentence, state.state == "on"))
    return list(found.values())


def own_files() -> list[list[str]]:
    """[module, path] of each loaded module of the application's own."""
    from .lines import is_own

    found = []
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and is_own(path):
            found.append([name, os.path.abspath(path)])
    return found


def thread_names() -> list[str]:
    import threading

    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]


def engines() -> list[Engine]:
    """The SQLAlchemy engines that there are, without their URLs."""
    module: Any = sys.modules.get("sqlalchemy.engine")
    if module is None:
        return []
    found: list[Engine] = []
    for one in gc.get_objects():
        with contextlib.suppress(Exception):
            if issubclass(type(one), module.Engine):  # isinstance() would have lazy objects made
                pool = one.pool
                found.append(
                    {
                        "dialect": one.dialect.name,
                        "driver": one.dialect.driver,
                        "size": pool.size() if hasattr(pool, "size") else 0,
                        "overflow": getattr(pool, "_max_overflow", 0),
                        "names_driver": "+" in one.url.drivername,
                        "most": max_connections(one),
                    }
                )
    return found


def max_connections(engine: Any) -> int:
    """Return how many connections the database allows, if it is PostgreSQL or MySQL and answers; 0 if not."""
    if engine.dialect.name not in ("postgresql", "mysql", "mariadb"):
        return 0
    from sqlalchemy import text

    statement = "SHOW max_connections" if engine.dialect.name == "postgresql" else "SELECT @@max_connections"
    with contextlib.suppress(Exception), engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar())
    return 0


def import_lazily(modules: list[str]) -> dict[str, float]:
    """Seconds for each module that the application imports only in functions, and that is not loaded yet."""
    found: dict[str, float] = {}
    for name in modules:
        if name in sys.modules:
            continue
        began = time.perf_counter()
        try:
            importlib.import_module(name)
        except BaseException:  # whatever a module does when it can't be imported
            continue
        found[name] = time.perf_counter() - began
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
