"""Which suites there are, where they come from, and how they are run."""

import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Suite:
    """`parts` are run one after the other: the arguments of each for `inside`. `without` is what it is compared to."""

    name: str
    kind: str
    parts: tuple[tuple[str, ...], ...]
    without: str = "stock"
    distribution: str = ""
    needs: tuple[str, ...] = ()  # of the package index, for its tests
    paths: tuple[str, ...] = ()  # below its folder, for PYTHONPATH
    environ: Callable[[], dict[str, str]] = field(default=dict)


def cpython() -> tuple[tuple[str, ...], ...]:
    names = (
        *("test_queue", "test_threading", "test_subprocess", "test_socket", "test_ssl", "test_concurrent_futures"),
        *("test_thread", "test_threading_local", "test_select", "test_selectors", "test_poll", "test_epoll"),
        *("test_signal", "test_sqlite3"),
    )
    here: list[str] = []
    for name in names:
        found = importlib.util.find_spec(f"test.{name}")
        if found is None:
            print(f"this Python comes without test.{name}")
        elif found.submodule_search_locations:
            modules = Path(found.submodule_search_locations[0]).glob("test_*.py")
            here += sorted(f"{name}.{path.stem}" for path in modules)
        else:
            here.append(name)
    return tuple((name,) for name in here)


def short_lived_threads() -> dict[str, str]:
    """CPython's tests wait until all threads are gone; gevent's threads for names wait 5 s for more work."""
    return {"GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT": "0.05"}


def gevents() -> tuple[tuple[str, ...], ...]:
    """Its primitives, and what is built on them. Its tests of patching start from a process that is not patched."""
    found = importlib.util.find_spec("gevent.tests")
    assert found is not None
    assert found.submodule_search_locations is not None
    names = sorted(path.stem for path in Path(found.submodule_search_locations[0]).glob("test__*.py"))
    unpatched = ("test__monkey", "test__example", "test__all__", "test__threading_", "test__issue", "test__import")
    return tuple((f"gevent.tests.{name}",) for name in names if not name.startswith(unpatched))


def postgres_environ() -> dict[str, str]:
    """The embedded PostgreSQL of the tests, as psycopg2's and SQLAlchemy's want to be told."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url

    from devdb.server import EmbeddedPostgres

    given = os.environ.get("PEERS_DATABASE_URL")
    url = make_url(given or EmbeddedPostgres(ROOT / "instance" / "peers").start())
    with create_engine(url.set(drivername="postgresql+psycopg2")).begin() as connection:
        for schema in ("test_schema", "test_schema_2"):  # SQLAlchemy's tests want them to be there
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    found = {
        "PSYCOPG2_TESTDB": "postgres",
        "PSYCOPG2_TESTDB_HOST": str(url.query.get("host") or url.host or ""),
        "PSYCOPG2_TESTDB_PORT": str(url.query.get("port") or url.port or ""),
        "PSYCOPG2_TESTDB_USER": url.username or "",
        "PGPASSWORD": url.password or "",
        "PYTHONNOUSERSITE": "1",  # SQLAlchemy's tests are for the one that is installed then
        "PEERS_POSTGRES": url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False),
    }
    found = {name: value for name, value in found.items() if value}
    return found | {"PSYCOPG2_TEST_REPL_DSN": ""}  # replication is tested, too, over the same


BEYOND = "test/with_dummyserver/test_connectionpool.py::TestConnectionPoolTimeouts"
# The embedded one has neither citext nor hstore.
IN_POSTGRES = ("-p", "tests.peers.no_extensions", "--dburi", "{PEERS_POSTGRES}")

SUITES = {
    suite.name: suite
    for suite in (
        Suite("cpython", "cpython", cpython(), without="gevent", environ=short_lived_threads),
        Suite("gevent", "unittest", gevents(), without="gevent"),
        Suite(
            "psycopg2",
            "unittest",
            (("tests.test_suite",),),
            distribution="psycopg2-binary",
            paths=(".",),
            environ=postgres_environ,
        ),
        Suite(
            "sqlalchemy",
            "pytest",
            (
                ("test/engine/test_pool.py", "--db", "default"),
                ("test/engine/test_reconnect.py", *IN_POSTGRES),
                ("test/dialect/postgresql", *IN_POSTGRES),
            ),
            distribution="sqlalchemy",
            paths=("test",),
            environ=postgres_environ,
        ),
        Suite(
            "requests",
            "pytest",
            (("tests",),),
            distribution="requests",
            needs=("pytest-httpbin", "httpbin", "pytest-mock", "trustme", "PySocks"),
        ),
        Suite(
            "urllib3",
            "pytest",
            # Each green thread is the main thread to Trio: where two run it at once it warns, and warnings are errors.
            # What connects to an address beyond this machine leaves an open socket wherever something answers there,
            # and the warning about it, which a later test gets, is an error, too.
            (
                (
                    *("test", "-W", "ignore:It looks like Trio:RuntimeWarning", "-m", "not requires_network"),
                    *(
                        f"--deselect={BEYOND}::{name}"
                        for name in ("test_connect_timeout", "test_total_applies_connect")
                    ),
                ),
            ),
            distribution="urllib3",
            needs=(
                "trustme",
                "hypercorn",
                "quart",
                "quart-trio",
                "httpx",
                "PySocks",
                "pytest-socket",
                "h2",
                "trio",
                "anyio",
            ),
        ),
    )
}


def fetch(suite: Suite, folder: Path) -> Path:
    """The suite's source at the installed version, unpacked, with what it needs in `needs`."""
    target = folder / suite.name
    if not suite.distribution:
        target.mkdir(parents=True, exist_ok=True)
        return target
    wanted = f"{suite.distribution}=={version(suite.distribution)}"
    if not list(target.glob("*/PKG-INFO")):
        with tempfile.TemporaryDirectory() as sources:
            pip("download", "--no-binary", suite.distribution, "--no-deps", "--dest", sources, wanted)
            (archive,) = Path(sources).iterdir()
            with tarfile.open(archive) as file:
                file.extractall(target, filter="data")
    if suite.needs and not (target / "needs").exists():
        pip("install", "--quiet", "--target", str(target / "needs"), *suite.needs)
    (unpacked,) = (path.parent for path in target.glob("*/PKG-INFO"))
    return unpacked


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", *arguments], check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    )
