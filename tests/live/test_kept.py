"""Connections that an application keeps for each thread are not left behind by each request."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import requests

from greenroom.waits.unclosed_connections import MOST_LEFT

from .conftest import Server

APPS = Path(__file__).parent / "apps"
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kept'"
AT_ONCE = 8


@pytest.fixture
def connections(postgres_url: str) -> Iterator[Callable[[], int]]:
    """How many the application has open now."""
    with closing(psycopg2.connect(postgres_url)) as connection:
        connection.autocommit = True

        def count() -> int:
            with connection.cursor() as cursor:
                cursor.execute(COUNT)
                return int(cursor.fetchone()[0])

        yield count


# Garbage is collected with a share of the time; PostgreSQL has room for a hundred.
@pytest.mark.parametrize(
    ("path", "most_left", "told"),
    [
        ("/plain", MOST_LEFT, ""),
        ("/circle", 60, "leaves it to the garbage collector (tests/live/apps/kept.py:"),
        ("/django", MOST_LEFT, "CONN_MAX_AGE has no effect"),
    ],
)
def test_connection_that_is_kept_by_thread_is_not_left_by_each_request(
    start: Callable[..., Server],
    postgres_url: str,
    connections: Callable[[], int],
    path: str,
    most_left: int,
    told: str,
) -> None:
    environ = {
        "PYTHONPATH": str(APPS),
        "WSGI_APP": "kept:app",
        "WEB_CONCURRENCY": "1",
        "KEPT_DATABASE_URL": postgres_url,
    }
    if path == "/django":
        found = importlib.util.find_spec("django")
        if found is None or found.origin is None:
            pytest.skip("Django is not installed")
        environ["KEPT_DJANGO"] = "yes"
        environ["PYTHONPATH"] += f"{os.pathsep}{Path(found.origin).parents[1]}"
    server = start(environ).wait_ready()
    session = requests.Session()

    def ask(_: int) -> int:
        return session.get(server.url + path, timeout=60).status_code

    most = 0
    for _ in range(10):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            assert list(pool.map(ask, range(30))) == [200] * 30
        most = max(most, connections())

    assert most <= AT_ONCE + most_left
    assert server.text().count(told) == 1 if told else "[WARNING]" not in server.text()
