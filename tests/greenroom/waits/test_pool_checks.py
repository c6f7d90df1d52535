"""What a pool of database connections looks at before it gives one out, and what it warns of."""

import logging
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psycopg2
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from greenroom import replacements
from greenroom.waits import pool, pool_advice

from .engines import LONG_WAIT_SECONDS, ask, hold

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("pre_ping", [True, False])
def test_connection_that_the_server_has_ended_costs_no_request(
    make_engine: Callable[..., Engine], postgres_url: str, pre_ping: bool
) -> None:
    engine = make_engine(pool_size=1, pool_pre_ping=pre_ping)
    pid = ask(engine, "SELECT pg_backend_pid()")
    admin = psycopg2.connect(postgres_url)
    admin.autocommit = True
    cursor = admin.cursor()
    cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])  # returns when it is gone

    assert ask(engine, "SELECT pg_backend_pid()") != pid
    admin.close()


def test_ping_is_spared_where_the_socket_tells(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=1, pool_pre_ping=True)
    pings = []
    plain = engine.dialect.do_ping
    engine.dialect.do_ping = lambda connection: pings.append(1) or plain(connection)  # type: ignore[method-assign]
    ask(engine)

    ask(engine)
    spared = len(pings)
    with engine.connect() as connection:
        raw: Any = connection.connection.dbapi_connection
    raw.greenroom_line.heard_at -= pool.PING_AFTER_SECONDS
    ask(engine)

    assert (spared, len(pings)) == (0, 1)


class Lined:
    """A connection of some other driver's, which has a line of its own."""

    line = "A1"

    def rollback(self) -> None: ...

    def close(self) -> None: ...


def test_connection_with_names_of_its_own_is_nobody_elses() -> None:
    with pool.GreenPool(Lined, pool_size=1).connect() as connection:  # type: ignore[arg-type]
        assert connection.dbapi_connection.line == "A1"  # type: ignore[union-attr]


def test_connection_with_all_names_that_there_are_is_nobody_elses() -> None:
    made = pool.GreenPool(MagicMock, pool_size=1)

    used = []
    for _ in range(2):
        with closing(made.connect()) as connection:
            used.append(connection.dbapi_connection)

    assert used[0] is used[1]


def test_what_a_connect_handler_has_begun_is_not_ended(make_engine: Callable[..., Engine]) -> None:
    """Slots are counted with the first connection, and only where nothing is open on it."""
    pool_advice.processes[:] = [pool_advice.Share(workers=1, hosts=1)]
    engine = make_engine(pool_size=1)

    @event.listens_for(engine, "connect")
    def set_path(connection: Any, _: Any) -> None:
        connection.cursor().execute("SET application_name = 'of the handler'")

    assert ask(engine, "SHOW application_name") == "of the handler"


def test_unknown_version_keeps_its_own_pool(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    real = replacements.registry.installed
    versions = {"SQLAlchemy": "9.1.0"}
    monkeypatch.setattr(replacements.registry, "installed", lambda name: versions.get(name) or real(name))
    before = sys.modules["sqlalchemy.pool"].QueuePool

    assert not pool.install(workers=1, hosts=1)

    assert sys.modules["sqlalchemy.pool"].QueuePool is before
    assert "SQLAlchemy 9.1.0: unknown to us" in caplog.text
    replacements.undo("sqlalchemy")


def test_more_connections_than_postgres_has_are_warned_of(
    make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    pool_advice.processes[:] = [pool_advice.Share(4, 3)]

    small = make_engine(pool_size=2, max_overflow=1)
    ask(small)
    assert "may open more" not in caplog.text
    small.dispose()
    ask(make_engine(pool_size=40, max_overflow=10))

    assert "50 for each of 4 workers on 3 host(s), and PostgreSQL has 297 for everybody" in caplog.text
    assert "be 24 at most" in caplog.text


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_pools_of_one_database_are_counted_together(
    driver: str, make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    pool_advice.processes[:] = [pool_advice.Share(4, 3)]
    one, other = make_engine(pool_size=20), make_engine(pool_size=10, max_overflow=5)
    other.dialect.driver = driver

    ask(one)
    assert "may open more" not in caplog.text
    ask(other)

    assert "35 (2 pools) for each of 4 workers on 3 host(s), and PostgreSQL has 297 for everybody" in caplog.text


@pytest.mark.parametrize(("limit", "is_said"), [(0, False), (8, False), (7, True)])
def test_a_pool_that_is_larger_than_the_limit_of_requests_is_warned_of(
    limit: int, is_said: bool, make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    pool_advice.processes[:] = [pool_advice.Share(1, 1, limit)]

    ask(make_engine(pool_size=6, max_overflow=2))

    assert ("up to 8 database connections serves at most 7 requests" in caplog.text) is is_said


def test_psycopg_3_that_waits_in_c_is_an_error_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = types.ModuleType("psycopg.waiting")
    monkeypatch.setitem(sys.modules, "psycopg.waiting", waiting)
    dialect = types.SimpleNamespace(driver="psycopg")

    waiting.wait = time.sleep  # type: ignore[attr-defined]  # in C
    pool_advice.warn_of_driver(dialect)
    assert "imported before patching" in caplog.text
    caplog.clear()
    waiting.wait = hold  # type: ignore[attr-defined]  # in Python
    pool_advice.warn_of_driver(dialect)

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_patched_process_gives_every_engine_this_pool(postgres_url: str) -> None:
    """Also the engine that was made before a fork: the child begins with an empty pool."""
    code = """
import os, sys
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
from sqlalchemy import QueuePool, create_engine, text
url = sys.argv[1].replace("postgresql:", "postgresql+psycopg2:")
engine = create_engine(url)
from greenroom.waits.pool import GreenPool
assert type(engine.pool) is GreenPool, engine.pool
assert type(create_engine(url, poolclass=QueuePool).pool) is GreenPool
assert engine.pool.logger.name == "sqlalchemy.pool.impl.QueuePool", engine.pool.logger.name
def backend():
    with engine.connect() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar()
mine = backend()
pid = os.fork()
if pid == 0:
    os._exit(0 if backend() != mine else 2)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert backend() == mine
try:
    create_engine("postgresql://")
except ModuleNotFoundError as exc:
    assert "postgresql+psycopg2://" in exc.__notes__[0]
"""
    result = subprocess.run(
        [sys.executable, "-c", code, postgres_url], cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT_SECONDS
    )

    assert result.returncode == 0, result.stderr
