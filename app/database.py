"""Binding the database: the engine's settings, and the embedded server with its migrations and first data."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from . import seed
from .config import Config
from .extensions import db, migrate
from .logs import first_line

logger = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
PREPARE_LOCK = 7_462_931  # any number, the same for every process of this application
PREPARE_SECONDS = 120
# Errors of PostgreSQL and PgBouncer when they have no connection to spare.
FULL = ("too many clients", "too many connections", "connection slots", "no more connections allowed")


def init_app(app: Flask, config: Config) -> None:
    """Bind `db` to DATABASE_URL, or to the embedded server, which is started here if nobody has."""
    url = config.DATABASE_URL
    if not url:
        from devdb.server import EmbeddedPostgres  # a tool of development: not needed where there is a database

        embedded = EmbeddedPostgres(config.INSTANCE_PATH / "postgres")
        app.extensions["embedded_postgres"] = embedded
        url = embedded.start()
    address = psycopg2_url(url)
    arguments = connect_args(
        address,
        {"statement_timeout": config.DB_STATEMENT_TIMEOUT_SECONDS * 1000, "timezone": "UTC"},
        connect_timeout=config.DB_CONNECT_TIMEOUT_SECONDS,
        application_name="boards",
    )
    app.config["SQLALCHEMY_DATABASE_URI"] = address
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": config.DB_POOL_SIZE,
        "max_overflow": config.DB_POOL_OVERFLOW,
        "pool_timeout": config.DB_POOL_TIMEOUT_SECONDS,
        # One cheap round trip when a connection is taken, so that a restart of PostgreSQL costs no request.
        "pool_pre_ping": True,
        "connect_args": arguments,
    }
    app.extensions["database_probe"] = create_engine(address, poolclass=NullPool, connect_args=arguments)
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))


def psycopg2_url(url: str) -> URL:
    """`url` with the psycopg2 driver named: SQLAlchemy 2.1 would pick psycopg 3 for a plain `postgresql://`."""
    scheme, separator, rest = url.partition("://")
    parsed = make_url("postgresql" + separator + rest if scheme == "postgres" else url)
    return parsed.set(drivername="postgresql+psycopg2")


def connect_args(address: URL, parameters: Mapping[str, Any], **arguments: Any) -> dict[str, Any]:
    """libpq's arguments for connections to `address`, in which what the URL itself says goes before ours.

    `parameters` are those of the PostgreSQL session. SQLAlchemy lets these arguments replace the URL's.
    """
    ours = " ".join(f"-c {name}={value}" for name, value in parameters.items())
    theirs = address.query.get("options", "")
    options = " ".join([ours, *([theirs] if isinstance(theirs, str) else theirs)]).strip()
    return {name: value for name, value in arguments.items() if name not in address.query} | {"options": options}


def is_reachable(app: Flask) -> bool:
    """Whether PostgreSQL serves us, found out within DB_CONNECT_TIMEOUT_SECONDS.

    Over a connection of its own: one of the pool may be in use, or wait for ever for a server that is frozen.
    """
    try:
        with app.extensions["database_probe"].connect() as connection:
            connection.execute(text("SELECT 1"))
    except OperationalError as exc:
        # It has no connection to spare. Those who have one are served, so it is no reason to send everybody away.
        return any(sign in str(exc.orig) for sign in FULL)
    except SQLAlchemyError:
        return False
    return True


def prepare_embedded(app: Flask, config: Config) -> None:
    """Bring the embedded database up to date and seed the demo board. A database of your own is left alone."""
    if "embedded_postgres" not in app.extensions:
        return
    with app.app_context(), one_at_a_time():
        if revision_in_database() != revisions_in_code()[0]:
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
    arguments = connect_args(db.engine.url, {"lock_timeout": timeout_seconds * 1000}, connect_timeout=5)
    engine = create_engine(db.engine.url, poolclass=NullPool, connect_args=arguments)
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
        return f"the database can't be reached: {first_line(exc)}"
    newest, *older = revisions_in_code()
    if found == newest:
        return None
    if found is None:
        return "the database has no tables yet; make them with: flask db upgrade"
    if found not in older:
        return f"the database is at revision {found}, which this code does not know: is the code older?"
    return f"the database is at revision {found}, the code needs {newest}; run: flask db upgrade"


def revision_in_database() -> str | None:
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def revisions_in_code() -> list[str]:
    """The newest one first."""
    return [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()]
