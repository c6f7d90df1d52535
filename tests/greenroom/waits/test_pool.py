"""The pool in SQLAlchemy's engines, against the real embedded PostgreSQL."""

import logging
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import gevent
import psycopg2
import pytest
from gevent._hub_local import get_hub_if_exists
from greenlet import GreenletExit
from sqlalchemy import create_engine, event, exc, text
from sqlalchemy.engine import Engine, make_url

from greenroom import deadline, replacements
from greenroom.in_flight import CURRENT, Record
from greenroom.waits import pool, pool_advice, postgres
from greenroom.waits.stdlib import hub
from greenroom.waits.threads import start_thread

ROOT = Path(__file__).resolve().parents[3]
LONG_WAIT_SECONDS = 30.0


@pytest.fixture
def make_engine(postgres_url: str) -> Iterator[Callable[..., Engine]]:
    """`make_engine(pool_size=1)`: an engine with our pool over psycopg2 as it is in a green worker."""
    hub.install()
    postgres.install(silence_seconds=60)
    engines = []

    def make(**options: Any) -> Engine:
        url = make_url(postgres_url).set(drivername="postgresql+psycopg2")
        engines.append(create_engine(url, poolclass=pool.GreenPool, **{"max_overflow": 0, **options}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
    pool_advice.processes.clear()
    replacements.undo("psycopg2", "sqlalchemy")


def ask(engine: Engine, sql: str = "SELECT 1") -> Any:
    with engine.connect() as connection:
        return connection.execute(text(sql)).scalar()


def hold(engine: Engine, path: str = "") -> tuple[gevent.Greenlet, gevent.event.Event]:
    """A request that holds a connection until the event is set."""
    let_go, has_it = gevent.event.Event(), gevent.event.Event()

    def holding() -> None:
        if path:
            CURRENT.set(Record(time.monotonic(), environ={"REQUEST_METHOD": "GET", "PATH_INFO": path}))
        with engine.connect():
            has_it.set()
            let_go.wait()

    greenlet = gevent.spawn(holding)
    assert has_it.wait(LONG_WAIT_SECONDS)
    return greenlet, let_go


def end(*holders: tuple[gevent.Greenlet, gevent.event.Event]) -> None:
    for greenlet, let_go in holders:
        let_go.set()
        greenlet.get(timeout=LONG_WAIT_SECONDS)


def test_those_who_wait_are_served_in_their_order(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=2)
    served: list[int] = []

    def use(number: int) -> None:
        with engine.connect():
            served.append(number)
            gevent.sleep(0.001)

    holders = [hold(engine), hold(engine)]
    waiting = [gevent.spawn(use, number) for number in range(20)]
    gevent.sleep(0)
    end(*holders)
    gevent.joinall(waiting, timeout=LONG_WAIT_SECONDS, raise_error=True)

    assert served == list(range(20))
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_exhaustion_names_request_age_and_line_of_each_holder(
    make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(pool_size=2, pool_timeout=0.05)
    holders = [hold(engine, "/boards"), hold(engine, "/reports")]
    line = hold.__code__.co_firstlineno + 7

    with pytest.raises(exc.TimeoutError) as caught:
        ask(engine)
    end(*holders)

    message = str(caught.value)
    assert "QueuePool limit of size 2 overflow 0 reached" in message
    for path in ("/boards", "/reports"):
        assert f"GET {path} for 0." in message
    assert f"{Path(__file__).name}:{line} in holding" in message
    assert "database pool exhausted 1 times" in caplog.text
    assert ask(engine) == 1


def test_wait_for_a_connection_ends_with_the_deadline(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=1, pool_timeout=LONG_WAIT_SECONDS)
    holder = hold(engine)

    with deadline.budget(0.05), pytest.raises(exc.TimeoutError, match="connection timed out"):
        ask(engine)
    with deadline.budget(0.0), pytest.raises(exc.TimeoutError, match="no database connection was taken"):
        ask(engine)
    end(holder)

    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert ask(engine) == 1


def test_who_is_killed_in_line_leaves_nothing_behind(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=1)
    holder = hold(engine)
    killed, served = gevent.spawn(ask, engine), gevent.spawn(ask, engine)
    gevent.sleep(0)

    holder[1].set()
    gevent.sleep(0)
    killed.kill()

    assert served.get(timeout=LONG_WAIT_SECONDS) == 1
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_connection_that_can_not_be_opened_lets_the_next_one_try(make_engine: Callable[..., Engine]) -> None:
    """The stock pool leaves those in line waiting for a connection that will never come back."""
    engine = make_engine(pool_size=1, pool_timeout=LONG_WAIT_SECONDS)
    plain, failures = engine.pool._invoke_creator, iter([True])

    def fail_once(record: Any) -> Any:
        gevent.sleep(0.02)
        if next(failures, False):
            raise psycopg2.OperationalError("no route to the database")
        return plain(record)

    engine.pool._invoke_creator = fail_once  # type: ignore[method-assign]
    first, second = gevent.spawn(lambda: pytest.raises(exc.OperationalError, ask, engine)), gevent.spawn(ask, engine)

    first.get(timeout=LONG_WAIT_SECONDS)
    assert second.get(timeout=LONG_WAIT_SECONDS / 2) == 1


def test_query_cut_by_the_deadline_leaves_the_other_connections(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(pool_size=2)
    holder = hold(engine)
    before = engine.pool._invalidate_time

    with deadline.budget(0.05), pytest.raises(exc.OperationalError):
        ask(engine, "SELECT pg_sleep(30)")
    monkeypatch.setattr("greenroom.waits.query_wait.GRACE_SECONDS", 0.0)  # too short for any answer
    with deadline.budget(0.05), pytest.raises(exc.OperationalError):
        ask(engine, "SELECT pg_sleep(30)")
    end(holder)

    assert engine.pool._invalidate_time == before
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert ask(engine) == 1


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


def test_who_is_killed_while_the_slots_are_counted_leaves_the_place(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(pool_size=1)

    def warn_of_slots(*_: Any) -> None:
        raise GreenletExit

    monkeypatch.setattr(pool_advice, "warn_of_slots", warn_of_slots)
    with pytest.raises(GreenletExit):
        engine.connect()

    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert ask(engine) == 1


def test_no_late_answer_reaches_another_query(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=2)
    ask(engine)  # SQLAlchemy has a lock for the first connection, which is a real one here: this process is not patched

    def use(number: int) -> None:
        for again in range(50):
            assert ask(engine, f"SELECT '{number}-{again}'") == f"{number}-{again}"

    pid = ask(engine, "SELECT pg_backend_pid()")
    gevent.joinall([gevent.spawn(use, number) for number in range(6)], timeout=LONG_WAIT_SECONDS, raise_error=True)
    pids = {ask(engine, "SELECT pg_backend_pid()") for _ in range(4)}

    assert pid in pids, "an answer was waited for that had been read already, and the connection given up"


def test_forked_child_opens_its_own(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=2)
    mine = ask(engine, "SELECT pg_backend_pid()")
    pool.install(workers=1, hosts=1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            engine.pool.leave_to_parent()  # type: ignore[attr-defined]  # as the hook does; it may be there once only
            code = 0 if ask(engine, "SELECT pg_backend_pid()") != mine else 2
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert ask(engine, "SELECT pg_backend_pid()") == mine


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


def test_real_threads_wait_in_line_without_an_event_loop_of_their_own(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(pool_size=1)
    let_go, has_it = hold(engine)[1], []
    hubs: list[Any] = []

    def in_thread() -> None:
        has_it.append(ask(engine))
        hubs.append(get_hub_if_exists())

    start_thread(in_thread)
    while not engine.pool._waiters:  # type: ignore[attr-defined]
        gevent.sleep(0.01)
    let_go.set()
    with gevent.Timeout(LONG_WAIT_SECONDS):
        while not hubs:
            gevent.sleep(0.01)

    assert (has_it, hubs) == ([1], [None])
