"""Binding the database: the engine's settings, and the embedded server with its migrations and first data."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from . import seed
from .config import Config
from .extensions import db, migrate
from .postgres import EmbeddedPostgres, psycopg2_url

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
PREPARE_LOCK = 7_462_931  # any number, the same for every process of this application
PREPARE_SECONDS = 120


def init_app(app: Flask, config: Config) -> None:
    """Bind `db` to DATABASE_URL, or to the embedded server, which is started here if nobody has."""
    url = config.DATABASE_URL
    if not url:
        embedded = EmbeddedPostgres(config.INSTANCE_PATH / "postgres")
        app.extensions["embedded_postgres"] = embedded
        url = embedded.start()
    app.config["SQLALCHEMY_DATABASE_URI"] = psycopg2_url(url)
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": config.DB_POOL_SIZE,
        "max_overflow": config.DB_POOL_OVERFLOW,
        "pool_timeout": config.DB_POOL_TIMEOUT_SECONDS,
        # One cheap round trip when a connection is taken, so that a restart of PostgreSQL costs no request.
        "pool_pre_ping": True,
        "connect_args": {
            "connect_timeout": config.DB_CONNECT_TIMEOUT_SECONDS,
            "options": f"-c statement_timeout={config.DB_STATEMENT_TIMEOUT_SECONDS * 1000} -c timezone=UTC",
            "application_name": "boards",
        },
    }
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))


def prepare_embedded(app: Flask, config: Config) -> None:
    """Bring the embedded database up to date and seed the demo board. A database of your own is left alone."""
    if "embedded_postgres" not in app.extensions:
        return
    with app.app_context(), one_at_a_time():
        if revision_in_database() != newest_revision():
            logger.info("migrating the embedded database")
            upgrade()
        if config.demo:
            seed.demo_board(config.PUBLIC_URL, is_told="PUBLIC_URL" in config.model_fields_set)
        db.engine.dispose()  # a process that forks later must not share these connections


@contextmanager
def one_at_a_time(timeout_seconds: int = PREPARE_SECONDS) -> Iterator[None]:
    """Several processes may start at once: the first one prepares, the others wait and find it done.

    Raises sqlalchemy.exc.OperationalError when the first one takes longer than `timeout_seconds`.
    """
    # A connection of its own: the lock must outlive the transactions inside, and goes with the connection.
    connect_args = {"connect_timeout": 5, "options": f"-c lock_timeout={timeout_seconds * 1000}"}
    engine = create_engine(db.engine.url, poolclass=NullPool, connect_args=connect_args)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": PREPARE_LOCK})
        yield


def revision_problem(app: Flask) -> str | None:
    """A sentence when the database can't be reached or has not the tables this code needs; None when all is well.

    For a database of your own, which only `flask db upgrade` changes.
    """
    try:
        with app.app_context():
            found = revision_in_database()
            db.engine.dispose()
    except SQLAlchemyError as exc:
        return f"the database can't be reached: {str(getattr(exc, 'orig', None) or exc).strip().splitlines()[0]}"
    if found == newest_revision():
        return None
    if found is None:
        return "the database has no tables yet; make them with: flask db upgrade"
    if found not in known_revisions():
        return f"the database is at revision {found}, which this code does not know: is the code older?"
    return f"the database is at revision {found}, the code needs {newest_revision()}; run: flask db upgrade"


def revision_in_database() -> str | None:
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()


def known_revisions() -> set[str]:
    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
