import os
from collections.abc import Callable, Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import create_engine, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from app import create_app, database, seed
from app.extensions import db
from app.models import Board, User


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of a database without tables, dropped afterwards."""
    name = f"empty_{os.getpid()}"
    server = create_engine(database.psycopg2_url(postgres_url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


def test_every_session_has_its_time_limit_and_speaks_utc(app: Flask) -> None:
    with app.app_context(), db.engine.connect() as connection:
        shown = {
            name: connection.scalar(text(f"SHOW {name}"))
            for name in ("statement_timeout", "TimeZone", "application_name")
        }

    assert shown == {"statement_timeout": "30s", "TimeZone": "UTC", "application_name": "boards"}


def test_what_the_url_says_goes_before_ours(postgres_url: str) -> None:
    options = "-csearch_path=tenant -cstatement_timeout=7s"
    url = make_url(postgres_url).update_query_dict({"options": options, "application_name": "mine"})
    app = create_app({"DATABASE_URL": url.render_as_string(hide_password=False)})

    with app.app_context():
        with db.engine.connect() as connection:
            shown = [
                connection.scalar(text(f"SHOW {name}"))
                for name in ("search_path", "statement_timeout", "TimeZone", "application_name")
            ]
        db.engine.dispose()

    assert shown == ["tenant", "7s", "UTC", "mine"]


def test_statement_that_runs_too_long_is_stopped(postgres_url: str) -> None:
    app = create_app({"DATABASE_URL": postgres_url, "DB_STATEMENT_TIMEOUT_SECONDS": "1"})

    with app.app_context(), db.engine.connect() as connection:
        with pytest.raises(OperationalError, match="statement timeout"):
            connection.execute(text("SELECT pg_sleep(5)"))
    with app.app_context():
        db.engine.dispose()


def test_migrations_make_exactly_the_tables_of_the_models_and_can_be_undone(empty_database: str) -> None:
    app = create_app({"DATABASE_URL": empty_database})
    with app.app_context():
        assert database.revision_problem(app) == "the database has no tables yet; make them with: flask db upgrade"

        upgrade()
        with db.engine.connect() as connection:
            difference = compare_metadata(MigrationContext.configure(connection), db.metadata)

        assert difference == []
        assert database.revision_problem(app) is None
        downgrade(revision="base")
        assert database.revision_in_database() is None
        db.engine.dispose()


def test_revision_that_the_code_does_not_know_is_named(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "revision_in_database", lambda: "feedc0ffee12")

    assert database.revision_problem(app) == (
        "the database is at revision feedc0ffee12, which this code does not know: is the code older?"
    )


def test_revision_that_is_behind_says_what_to_run(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    found, *_ = known = database.revisions_in_code()
    monkeypatch.setattr(database, "revisions_in_code", lambda: ["feedc0ffee12", *known])

    assert database.revision_problem(app) == (
        f"the database is at revision {found}, the code needs feedc0ffee12; run: flask db upgrade"
    )


def test_preparing_waits_for_another_process_but_not_for_ever(app: Flask) -> None:
    with app.app_context(), database.one_at_a_time():
        with pytest.raises(OperationalError, match="lock timeout"), database.one_at_a_time(timeout_seconds=1):
            pytest.fail("two prepare at once")


def test_database_of_your_own_is_neither_migrated_nor_seeded(
    app: Flask, empty_database: str, count: Callable[[str], int]
) -> None:
    create_app({"DATABASE_URL": empty_database})

    assert count("boards") == 0
    engine = create_engine(database.psycopg2_url(empty_database), poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")) == 0


def test_demo_board_stays_where_it_is_when_nobody_says_otherwise(app: Flask) -> None:
    with app.app_context():
        seed.demo_board("http://127.0.0.1:9000")

        seed.demo_board("http://127.0.0.1:8000", is_told=False)

        board = db.session.scalar(select(Board).where(Board.slug == seed.DEMO_SLUG))
        assert board.sources[0].url.startswith("http://127.0.0.1:9000/")


def test_demo_board_follows_the_public_url(app: Flask) -> None:
    with app.app_context():
        seed.demo_board("http://127.0.0.1:8000")
        seed.demo_board("http://127.0.0.1:9000")

        (board,) = db.session.scalars(select(Board))

        assert board.is_public
        assert [source.url for source in board.sources] == [
            url for _, url, _ in seed.demo_sources("http://127.0.0.1:9000")
        ]
        db.session.rollback()


def test_board_of_a_user_that_is_called_demo_is_left_alone(app: Flask) -> None:
    with app.app_context():
        owner = User(email="ann@example.org", password_hash="-")
        db.session.add(Board(slug="demo", title="Mine", owner=owner))
        db.session.commit()

        seed.demo_board("http://127.0.0.1:8000")

        (board,) = db.session.scalars(select(Board))
        assert (board.title, board.sources) == ("Mine", [])
        db.session.rollback()


@pytest.mark.parametrize("given", ["postgres://u:p@h/d", "postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"])
def test_every_spelling_of_the_url_gets_the_psycopg2_driver(given: str) -> None:
    assert database.psycopg2_url(given).render_as_string(hide_password=False) == "postgresql+psycopg2://u:p@h/d"
