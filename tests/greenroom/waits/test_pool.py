"""The pool in SQLAlchemy's engines, against the real embedded PostgreSQL."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import psycopg2
import pytest
from gevent._hub_local import get_hub_if_exists
from greenlet import GreenletExit
from sqlalchemy import exc
from sqlalchemy.engine import Engine

from greenroom import deadline
from greenroom.waits import pool, pool_advice
from greenroom.waits.threads import start_thread

from .engines import LONG_WAIT_SECONDS, ask, hold


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
    assert f"{Path(hold.__code__.co_filename).name}:{line} in holding" in message
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
