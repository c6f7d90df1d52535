"""PostgreSQL as requests wait for it."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

from greenroom import replacements
from greenroom.waits import postgres
from greenroom.waits.stdlib import hub


@pytest.fixture
def green() -> Iterator[None]:
    """psycopg2 as in a green worker, for the length of a test."""
    hub.install()
    postgres.install(silence_seconds=60)
    yield
    replacements.undo("psycopg2")


@pytest.fixture
def connect(green: None, postgres_url: str) -> Iterator[Callable[..., Any]]:
    made = []

    def connect_again(**kwargs: Any) -> Any:
        made.append(psycopg2.connect(postgres_url, **kwargs))
        return made[-1]

    yield connect_again
    for connection in made:
        connection.close()


@pytest.fixture
def connection(connect: Callable[..., Any]) -> Any:
    return connect()


@pytest.fixture
def watcher(connect: Callable[..., Any]) -> Any:
    """A cursor that looks at what the server does."""
    watching = connect()
    watching.autocommit = True
    return watching.cursor()
