"""Fixtures for every ring of tests: one embedded PostgreSQL, and an environment without yours."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from app.config import Config
from devdb.server import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
# Kept between runs, because making a database cluster takes longer than most test files.
TEST_INSTANCE = ROOT / "instance" / "tests"
LONG_RUN_SECONDS = 300
MOST_FILES = 40
LONG_FILES_ARE_IN = ("tests/live/", "tests/browser/", "tests/doctor/")
OURS = ("GREENROOM_", "GUNICORN_", "FLASK_", *Config.model_fields, "WEB_CONCURRENCY", "WSGI_APP")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes longer than CI may, unless it is asked for: `make nightly`. Begin with the longest files."""
    if hasattr(config, "workerinput"):  # one of xdist's processes; they end together if the short files come last
        items.sort(key=order)
    if "nightly" in config.option.markexpr:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=nightly)
    items[:] = [item for item in items if item not in set(nightly)]


def order(item: pytest.Item) -> tuple[bool, str]:
    """Where the item's file comes: long ones first, by name alone, so that few browsers run at a time."""
    return (False, item.path.name) if item.nodeid.startswith(LONG_FILES_ARE_IN) else (True, "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After a long run, the files that took longest: a file is what one process runs on its own."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    if seconds.total() > LONG_RUN_SECONDS:
        terminalreporter.section(f"longest files, of {seconds.total():.0f} s in all")
        for name, took in seconds.most_common(MOST_FILES):
            terminalreporter.write_line(f"{took:7.1f} s  {name}")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No setting of the person who runs the tests reaches them."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(OURS)}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database of this run's own, on an embedded PostgreSQL that is kept between runs."""
    postgres = EmbeddedPostgres(TEST_INSTANCE / "postgres")
    server = make_url(postgres.start())
    database = f"test_{os.getpid()}"
    with closing(psycopg2.connect(server.render_as_string(hide_password=False))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{database}"')
            # Nobody needs this data after a power cut, and waiting for the disk is most of a test's time.
            cursor.execute(f'ALTER DATABASE "{database}" SET synchronous_commit = off')
            yield server.set(database=database).render_as_string(hide_password=False)
            cursor.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    postgres.stop()
