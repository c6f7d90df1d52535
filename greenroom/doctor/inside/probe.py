"""Facts from within the worker that insight does not have: statements, connections, growth, calls in threads.

    statements   the same one again and again in one request: from SQLAlchemy's events, and SQLite's own trace
    connections  taken from an SQLAlchemy pool and kept while the request connects to, or sends to, an HTTP upstream
    offload      calls that Greenroom runs in a thread because they compute: how long, from which line
    growth       how many entries the containers at module level have, when asked
    cookies      in requests.Session objects at module level
    imports      modules that a request is the first to import, by the own line that does

Asked over the worker's socket: {"ask": "doctor"}.
"""

import contextlib
import sys
import time
import types
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ... import redaction
from ...in_flight import CURRENT
from ...ops.worker_server import WorkerServer
from .lines import is_own, own_line, shown

MOST_LINES = 500
MOST_MODULES = 500
SHORTEST_OFFLOAD_SECONDS = 0.02
HTTP_CODE = ("http/client.py", "greenroom/waits/http/", "urllib3/", "httpcore/", "smtplib.py", "urllib/request.py")


class Probe:
    """Runs on: request greenlets write; the worker server's thread reads."""

    def __init__(self) -> None:
        self.is_looking = True  # not while the doctor measures: what it costs to look is not the application's
        # Of the request that runs them, by its record: statement and line -> how often.
        self.statements: dict[int, tuple[Any, Counter[tuple[str, str]]]] = {}
        self.repeated: dict[tuple[str, str], int] = {}  # the most in one request
        self.taken: dict[int, tuple[Any, Any, str, float]] = {}  # a pool's connection -> record, since which line
        self.used: dict[int, str] = {}  # record -> the line that asked a database last
        self.held: dict[tuple[str, str], int] = {}
        self.offloaded: dict[tuple[str, str], list[float]] = {}
        self.threads: Counter[str] = Counter()
        self.imports: Counter[tuple[str, str]] = Counter()

    def install(self) -> None:
        from ...on_import import when_imported

        when_imported("sqlalchemy", self._sqlalchemy)
        when_imported("sqlite3", self._sqlite)
        sys.addaudithook(self.hook)
        self._offload()
        self._threads()

    # Statements.

    def statement(self, sql: str) -> None:
        record = CURRENT.get()
        if record is None or not self.is_looking:
            return
        line = own_line(sys._getframe(2))
        key = id(record)
        held = self.statements.get(key)
        if held is None or held[0] is not record:
            if len(self.statements) > MOST_LINES:
                self.statements.pop(next(iter(self.statements)))
            held = self.statements[key] = (record, Counter())
        self.used[key] = line
        if len(self.used) > 10 * MOST_LINES:
            self.used.pop(next(iter(self.used)))
        place = (redaction.statement(sql), line)
        held[1][place] += 1
        count = held[1][place]
        if count > 2 and count > self.repeated.get(place, 0) and len(self.repeated) < MOST_LINES:
            self.repeated[place] = count

    def _sqlalchemy(self, module: types.ModuleType) -> None:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine
        from sqlalchemy.pool import Pool

        def before(connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
            self.statement(str(sql))

        def checkout(connection: Any, entry: Any, proxy: Any) -> None:
            record = CURRENT.get()
            if record is not None and self.is_looking:
                self.taken[id(entry)] = (record, entry, own_line(sys._getframe(1)), time.monotonic())

        def checkin(connection: Any, entry: Any) -> None:
            self.taken.pop(id(entry), None)

        event.listen(Engine, "before_cursor_execute", before)
        event.listen(Pool, "checkout", checkout)
        event.listen(Pool, "checkin", checkin)

    def _sqlite(self, module: types.ModuleType) -> None:
        plain: Any = module.connect

        def connect(*arguments: Any, **options: Any) -> Any:
            connection = plain(*arguments, **options)
            with contextlib.suppress(Exception):
                if not any("sqlalchemy" in frame for frame in _callers(6)):
                    connection.set_trace_callback(self.statement)
            return connection

        loaded: Any = module
        loaded.connect = connect
        if hasattr(loaded, "dbapi2"):
            loaded.dbapi2.connect = connect

    # Connections held across calls.

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("marshal.loads", "compile"):  # a module's code, from its cache or its text
            with contextlib.suppress(Exception):
                self._imports(sys._getframe(1))
        if event not in ("socket.connect", "http.client.send", "http.client.connect") or not self.taken:
            return
        with contextlib.suppress(Exception):
            self._calls(sys._getframe(1))

    def _calls(self, frame: types.FrameType) -> None:
        record = CURRENT.get()
        mine = [one for one in list(self.taken.values()) if one[0] is record]
        if record is None or not mine or not any(part in file for file in _files(frame) for part in HTTP_CODE):
            return
        line = own_line(frame)
        used = self.used.get(id(record), mine[0][2])
        if line and used and line != used and len(self.held) < MOST_LINES:
            self.held[used, line] = self.held.get((used, line), 0) + 1

    def _imports(self, frame: types.FrameType | None) -> None:
        if CURRENT.get() is None or len(self.imports) > MOST_LINES:
            return
        module = line = ""
        while frame is not None:
            code = frame.f_code
            if code.co_name == "_find_and_load" and code.co_filename.startswith("<frozen importlib"):
                module, line = str(frame.f_locals["name"]), ""  # the outermost is the one that the line asks for
            elif module and not line and is_own(code.co_filename):
                line = f"{shown(code.co_filename)}:{frame.f_lineno}"
            frame = frame.f_back
        if line:
            self.imports[line, module] += 1

    # Work in threads.

    def _offload(self) -> None:
        from ...offload import Offload

        plain = Offload.run
        offloaded = self.offloaded

        def run(self: Any, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            began = time.monotonic()
            try:
                return plain(self, name, function, args, kwargs)
            finally:
                seconds = time.monotonic() - began
                if seconds >= SHORTEST_OFFLOAD_SECONDS and CURRENT.get() is not None:
                    seen = offloaded.setdefault((name, own_line(sys._getframe(1))), [])
                    if len(seen) < MOST_LINES:
                        seen.append(seconds)

        Offload.run = run  # type: ignore[method-assign]

    def _threads(self) -> None:
        import threading

        thread_class: Any = threading.Thread
        plain = thread_class.start

        def start(thread: Any) -> None:
            if CURRENT.get() is not None and len(self.threads) < MOST_LINES:
                line = own_line(sys._getframe(1))
                if line:
                    self.threads[line] += 1
            plain(thread)

        thread_class.start = start

    def as_dict(self) -> dict[str, Any]:
        return {
            "repeated": [[sql, line, count] for (sql, line), count in list(self.repeated.items())],
            "held": [[used, line, count] for (used, line), count in list(self.held.items())],
            "offloaded": [[name, line, list(seen)] for (name, line), seen in list(self.offloaded.items())],
            "threads": [[line, count] for line, count in list(self.threads.items())],
            "imports": [[line, module, count] for (line, module), count in list(self.imports.items())],
            "sizes": sizes(),
            "cookies": cookies(),
        }


def _callers(depth: int) -> list[str]:
    return _files(sys._getframe(2))[:depth]


def _files(frame: types.FrameType | None, most: int = 40) -> list[str]:
    found: list[str] = []
    while frame is not None and len(found) < most:
        found.append(frame.f_code.co_filename)
        frame = frame.f_back
    return found


def own_modules() -> list[types.ModuleType]:
    found = []
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and is_own(path):
            found.append(module)
    return found[:MOST_MODULES]


def sizes() -> dict[str, int]:
    """`module.name` -> how many entries, of containers at module level and in objects of own classes there."""
    found: dict[str, int] = {}
    for module in own_modules():
        for name, value in list(vars(module).items()):
            if name.startswith("__"):
                continue
            _measure(f"{module.__name__}.{name}", value, found)
            if isinstance(value, type) and value.__module__ == module.__name__:
                for attribute, held in list(vars(value).items()):
                    _measure(f"{module.__name__}.{name}.{attribute}", held, found)
            if type(value).__module__ == module.__name__ and not isinstance(value, type):
                with contextlib.suppress(Exception):
                    for attribute, held in list(vars(value).items()):
                        _measure(f"{module.__name__}.{name}.{attribute}", held, found)
    return found


def _measure(name: str, value: Any, found: dict[str, int]) -> None:
    """Asks the type and not the value: a proxy (`flask.request`) answers for something that is not there."""
    kind = type(value)
    with contextlib.suppress(Exception):
        if issubclass(kind, dict | list | set | deque) and getattr(value, "maxlen", None) is None:
            found[name] = len(value)
        elif kind.__name__ == "_lru_cache_wrapper":
            info = value.cache_info()
            if info.maxsize is None:
                found[name] = int(info.currsize)


def cookies() -> dict[str, int]:
    """`module.name` of each requests.Session at module level that keeps cookies."""
    module: Any = sys.modules.get("requests.sessions")
    if module is None:
        return {}
    found = {}
    for own in own_modules():
        for name, value in list(vars(own).items()):
            with contextlib.suppress(Exception):
                if issubclass(type(value), module.Session) and len(value.cookies):
                    found[f"{own.__name__}.{name}"] = len(value.cookies)
    return found


class DoctorServer(WorkerServer):
    """The worker's socket, which also knows what the probe has seen."""

    probe: Probe

    def _look_away(self) -> dict[str, Any]:
        self.probe.is_looking = False
        return {}

    def _handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            **super()._handlers(),
            "doctor": lambda asked: self.probe.as_dict(),
            "doctor, look away": lambda asked: self._look_away(),
        }
