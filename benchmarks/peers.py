"""The servers that are compared, how each is started, and what is asked of it.

    route      under gunicorn, granian, uWSGI    under Hypercorn     under uvicorn
    hello      a bare WSGI application           a bare ASGI one     a bare ASGI one
    dict       Flask                             Quart               FastAPI
    session    Flask, requests.Session           -                   FastAPI, aiohttp
    bare       Flask, requests.get               -                   the same
    fanout     Flask, requests in 20 threads     -                   FastAPI, aiohttp, gather
    database   Flask, SQLAlchemy, psycopg2       -                   FastAPI, SQLAlchemy, asyncpg
    upload, large, events      Flask             -                   FastAPI

Each is one process for requests, or one and what it can't serve without, on one core. No access log, because none of
them should measure the terminal; else the defaults, but for what stands beside the command with its reason.

The peers live in an environment of their own (benchmarks/requirements.txt), so that comparing with them puts nothing
into ours.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .apps import bodies
from .database import messages_about
from .machine import ROOT
from .servers import HOST, ServerFailed, ServerUnderTest, clean_environment, gunicorn

HOW_TO_INSTALL = (
    "python -m benchmarks run --install-peers",
    "uWSGI needs a C compiler; where there is none, leave its line out",
)
VENV = ROOT / "benchmarks" / ".venv"
OURS = "greenroom"
BASELINE = "gevent"
# Packages that must be the same in both environments, or the comparison is not one of servers.
SHARED_PACKAGES = ("flask", "werkzeug", "gevent", "greenlet")
# Patches that Greenroom applies to gunicorn's own workers too; a stock one doesn't have them.
PATCHES = (
    "GREENROOM_PATCH_REQUESTS",
    "GREENROOM_PATCH_DNS",
    "GREENROOM_PATCH_PSYCOPG2",  # the stock worker has psycogreen, from its application
    "GREENROOM_PATCH_SQLALCHEMY",
)
# Most connections at a time for uWSGI, which has to know it beforehand; gunicorn's worker_connections has the same.
UWSGI_CORES = 1000
ASK_VERSIONS = """\
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Route:
    """A request and the only right answer to it: these bytes, or JSON that says this.

    `clients`: how many ask, where the route has a number of its own; `peers`: who is asked, where not all are.
    """

    name: str
    about: str
    expected: bytes | dict[str, Any]
    path: str = "/"
    clients: int = 0
    peers: tuple[str, ...] = ()
    needs_upstream: bool = False
    needs_database: bool = False
    body: bytes = b""  # to be sent, with POST
    ready_path: str = ""  # what answers 200 when the application is there, if it is not `path`

    def is_right(self, body: bytes) -> bool:
        if isinstance(self.expected, bytes):
            return body == self.expected
        try:
            return bool(json.loads(body) == self.expected)
        except ValueError:
            return False


TOPIC = 7  # of the messages that the applications ask the database for
HELLO = Route("hello", "14 bytes of text from a bare WSGI or ASGI application", b"Hello, world!\n")
DICT = Route("dict", "a Flask, Quart or FastAPI route that returns a dict", {"message": "hello", "numbers": [1, 2, 3]})
# Servers that wait for upstreams in the event loop; with 8 threads, 200 clients would measure the threads.
WAITERS = (BASELINE, OURS, "uvicorn")
DELAYED = {"delay_ms": 100}
SESSION = Route(
    "session", "one call of 100 ms through requests.Session", {"upstream": DELAYED}, "/session", 200, WAITERS, True
)
BARE = Route("bare", "one call of 100 ms with requests.get()", {"upstream": DELAYED}, "/bare", 200, WAITERS, True)
FAN_OUT = Route(
    # One client that asks again at once asks 9 times a second.
    "fanout", "20 calls of 100 ms side by side", {"upstreams": [DELAYED] * 20}, "/fanout", 1, WAITERS, True
)  # fmt: skip
DATABASE = Route(
    "database",
    "one query of ten rows",
    {"rows": messages_about(TOPIC)},
    peers=WAITERS,
    needs_database=True,
)
UPLOAD = Route(
    "upload", "1 MB is sent to it", {"bytes": bodies.MEGABYTE}, "/upload", 8, (*WAITERS, "granian"),
    body=bodies.LARGE, ready_path="/",
)  # fmt: skip
LARGE = Route("large", "an answer of 1 MB", bodies.LARGE, "/large", 8, (*WAITERS, "granian"))
EVENTS = Route("events", "a stream of 100 events", bodies.ALL_EVENTS, "/events", 16, (*WAITERS, "granian"))
ROUTES = {route.name: route for route in (HELLO, DICT, SESSION, BARE, FAN_OUT, DATABASE, UPLOAD, LARGE, EVENTS)}

WSGI_APPS = {
    "hello": "benchmarks.apps.hello:wsgi",
    "dict": "benchmarks.apps.flask_dict:app",
    **dict.fromkeys(("session", "bare", "fanout"), "benchmarks.apps.flask_upstream:app"),
    "database": "benchmarks.apps.flask_database:app",
    **dict.fromkeys(("upload", "large", "events"), "benchmarks.apps.flask_bodies:app"),
}
STOCK_APPS = {**WSGI_APPS, "database": "benchmarks.apps.flask_database_psycogreen:app"}
QUART_APPS = {"hello": "benchmarks.apps.hello:asgi", "dict": "benchmarks.apps.quart_dict:app"}
FASTAPI_APPS = {
    "hello": "benchmarks.apps.hello:asgi",
    "dict": "benchmarks.apps.fastapi_dict:app",
    **dict.fromkeys(("session", "bare", "fanout"), "benchmarks.apps.fastapi_upstream:app"),
    "database": "benchmarks.apps.fastapi_database:app",
    **dict.fromkeys(("upload", "large", "events"), "benchmarks.apps.fastapi_bodies:app"),
}


@dataclass(frozen=True)
class Environment:
    """A Python and what is installed for it."""

    python: Path
    versions: Mapping[str, str]

    @classmethod
    def look(cls, python: Path, packages: Iterable[str]) -> "Environment":
        """Raises ServerFailed when `python` can't be run."""
        try:
            done = subprocess.run(
                [python, "-c", ASK_VERSIONS, *packages],
                env=clean_environment(),
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise ServerFailed(f"the Python for the peers can't be run: {exc}") from exc
        return cls(python, json.loads(done.stdout))


@dataclass(frozen=True)
class Peer:
    """One server to compare.

    `command` is what follows the Python it is installed for, or the command's own name where it begins with one;
    {port}, {app}, {threads} and {venv} are filled in. None: a worker class of gunicorn, under our configuration file.
    `framework` is what the dict route is written with, where that is not Flask.
    """

    name: str
    packages: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    apps: Mapping[str, str] | None = None
    framework: str = ""
    worker_class: str = ""  # where it is not the name
    settings: Mapping[str, str] = field(default_factory=dict)

    def label(self, route: Route) -> str:
        """The name in table and plot; it says so where the framework is another one."""
        return f"{self.framework} + {self.name}" if self.framework and route is not HELLO else self.name

    def is_asked(self, route: Route) -> bool:
        return not route.peers or (self.worker_class or self.name) in route.peers

    def missing(self, environment: Environment) -> list[str]:
        return [name for name in self.packages if name not in environment.versions]

    def server(self, route: Route, environment: Environment, threads: int) -> ServerUnderTest:
        app = (self.apps or WSGI_APPS)[route.name]
        label = self.label(route)
        if self.command is None:
            worker_class = self.worker_class or self.name
            stock = {} if worker_class == OURS else {name: "no" for name in PATCHES}
            settings = {"GREENROOM_THREADS": str(threads), **stock, **self.settings}
            return replace(gunicorn(worker_class, app, settings), name=label)
        folder = environment.python.parent
        known = {"{app}": app, "{threads}": str(threads), "{venv}": str(folder.parent)}
        words = [known.get(word, word) for word in self.command]
        first = [str(environment.python)] if words[0] == "-m" else [str(folder / words.pop(0))]
        return ServerUnderTest(label, (*first, *words), {}, app)


GUNICORN = (Peer(BASELINE, apps=STOCK_APPS), *(Peer(name) for name in (OURS, "gevent_pywsgi", "gthread")))
# The servers of `--worker-classes`; its routes are one that waits in each way, and one that does not wait.
WORKER_CLASSES = (Peer("sync"), Peer("gthread"), *GUNICORN[:2])
CLASS_ROUTES = ("dict", "session", "database")
GRANIAN = Peer(
    "granian",
    ("granian", "flask"),
    # As many threads as gthread gets. Its own choice is 512, with a warning that this is too much, and was slower.
    ("-m", "granian", "--interface", "wsgi", "--host", HOST, "--port", "{port}", "--workers", "1")
    + ("--blocking-threads", "{threads}", "--log-level", "warning", "{app}"),
)  # fmt: skip
UWSGI = Peer(
    "uwsgi",
    ("uwsgi", "gevent", "flask"),
    # Through its router, a second process on the same core: it speaks HTTP without keep-alive otherwise, which was
    # slower, and --http11-socket doesn't work with --gevent (https://github.com/unbit/uwsgi/issues/1964).
    ("uwsgi", "--http", f"{HOST}:{{port}}", "--http-keepalive", "--master", "--gevent", str(UWSGI_CORES))
    + ("--gevent-early-monkey-patch", "--virtualenv", "{venv}", "--pythonpath", str(ROOT), "--module", "{app}")
    + ("--need-app", "--die-on-term", "--disable-logging"),
)  # fmt: skip
HYPERCORN = Peer(
    "hypercorn",
    ("hypercorn", "quart", "uvloop"),
    # uvloop because uvicorn uses it unasked: the same loop for both.
    ("-m", "hypercorn", "--bind", f"{HOST}:{{port}}", "--workers", "1", "--worker-class", "uvloop")
    + ("--log-level", "warning", "{app}"),
    QUART_APPS,
    "Quart",
)  # fmt: skip
UVICORN = Peer(
    "uvicorn",
    ("uvicorn", "fastapi", "uvloop", "httptools", "aiohttp", "sqlalchemy", "asyncpg"),
    ("-m", "uvicorn", "--host", HOST, "--port", "{port}", "--workers", "1")
    + ("--no-access-log", "--log-level", "warning", "{app}"),
    FASTAPI_APPS,
    "FastAPI",
)  # fmt: skip
PEERS = {peer.name: peer for peer in (*GUNICORN, GRANIAN, UWSGI, HYPERCORN, UVICORN)}


def peers_python(venv: Path | None) -> Path:
    """The Python that the peers are installed for: of `venv`, else of benchmarks/.venv, else this one."""
    if venv is not None:
        return venv.absolute() / "bin" / "python"
    return VENV / "bin" / "python" if VENV.is_dir() else Path(sys.executable)


def packages_of(peers: Iterable[Peer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for peer in peers for name in peer.packages))


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """A sentence for each package, and for Python, that is not the same on both sides."""
    return [
        f"{name} is {ours[name]} under gunicorn and {theirs[name]} under the peers"
        for name in ("python", *SHARED_PACKAGES)
        if name in ours and name in theirs and ours[name] != theirs[name]
    ]
