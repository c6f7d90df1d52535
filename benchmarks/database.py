"""The database under the measurement: an embedded PostgreSQL of its own, or yours, with one table of messages."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy.exc import ArgumentError

from app.database import psycopg2_url
from devdb.server import EmbeddedPostgres, EmbeddedPostgresError

from .servers import ServerFailed

TOPICS = 100
MESSAGES_PER_TOPIC = 10

TABLE = """
DROP TABLE IF EXISTS benchmark_messages;
CREATE TABLE benchmark_messages (
    id integer PRIMARY KEY, topic integer NOT NULL, author text NOT NULL, title text NOT NULL, votes integer NOT NULL
);
INSERT INTO benchmark_messages
    SELECT number, number %% %(topics)s, 'author ' || number, 'message number ' || number, number %% 17
    FROM generate_series(1, %(count)s) AS number;
CREATE INDEX ON benchmark_messages (topic, id);
ANALYZE benchmark_messages;
"""


@contextlib.contextmanager
def database_running(folder: Path) -> Iterator[tuple[str, str]]:
    """The URL for SQLAlchemy and one sentence about the server. DATABASE_URL names yours; it gets, and keeps, one table
    `benchmark_messages`. Without it PostgreSQL is started in `folder`, where this process runs.

    Raises ServerFailed when it can't be used.
    """
    given = os.environ.get("DATABASE_URL", "").strip()
    embedded = None if given else EmbeddedPostgres(folder)
    try:
        try:
            url = psycopg2_url(given if embedded is None else embedded.start())
            server = fill(url.set(drivername="postgresql").render_as_string(hide_password=False))
        except (EmbeddedPostgresError, psycopg2.Error, ArgumentError) as exc:
            raise ServerFailed(f"the database can't be used: {exc}") from exc
        place = "embedded" if embedded else "from DATABASE_URL, not pinned"
        yield url.render_as_string(hide_password=False), f"PostgreSQL {server}, {place}"
    finally:
        if embedded is not None:
            embedded.stop()


def fill(url: str) -> str:
    """Make the table anew; returns the server's version."""
    connection = psycopg2.connect(url, connect_timeout=10)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(TABLE, {"topics": TOPICS, "count": TOPICS * MESSAGES_PER_TOPIC})
            cursor.execute("SHOW server_version")
            return str(cursor.fetchone()[0]).split()[0]
    finally:
        connection.close()


def messages_about(topic: int) -> list[dict[str, Any]]:
    """The rows that the database route answers, worked out without a database."""
    numbers = [number for number in range(1, TOPICS * MESSAGES_PER_TOPIC + 1) if number % TOPICS == topic]
    return [
        {"id": number, "author": f"author {number}", "title": f"message number {number}", "votes": number % 17}
        for number in numbers
    ]
