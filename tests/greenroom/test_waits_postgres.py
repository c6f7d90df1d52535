"""psycopg2's wait callback in processes of their own, against the real embedded PostgreSQL and a silent impostor."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GREEN = """
import sys; sys.path.insert(0, sys.argv[1]); url = sys.argv[2]
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings(database_silence_seconds=1))
import gevent, psycopg2, socket, time
"""


def run(code: str, url: str = "") -> None:
    """Run `code` in a patched process; it fails the test by failing its own assertions."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", GREEN + code, str(ROOT), url], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_a_query_lets_other_greenlets_run(postgres_url: str) -> None:
    run(
        """
connection = psycopg2.connect(url)
turns = []
ticker = gevent.spawn(lambda: [(turns.append(1), gevent.sleep(0.01)) for _ in range(1000)])
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_sleep(0.3)")
assert len(turns) > 5, len(turns)
""",
        postgres_url,
    )


def test_queries_of_several_greenlets_run_at_the_same_time(postgres_url: str) -> None:
    run(
        """
def backends():
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.5)")
    connection.close()
watcher = psycopg2.connect(url); watcher.autocommit = True
sleepers = [gevent.spawn(backends) for _ in range(4)]
seen = 0
while not all(sleeper.ready() for sleeper in sleepers):
    with watcher.cursor() as cursor:
        cursor.execute("SELECT count(*)"
            " FROM pg_stat_activity WHERE query LIKE '%SELECT pg_sleep(0.5)' AND state = 'active'")
        seen = max(seen, cursor.fetchone()[0])
    gevent.sleep(0.02)
assert seen == 4, seen
""",
        postgres_url,
    )


def test_a_server_that_accepts_and_says_nothing_ends_at_connect_timeout() -> None:
    run(
        """
silent = socket.create_server(("127.0.0.1", 0))
started = time.monotonic()
try:
    psycopg2.connect(host="127.0.0.1", port=silent.getsockname()[1], dbname="x", user="x", connect_timeout=1)
except psycopg2.OperationalError as exc:
    assert "connect_timeout: no connection within 1 s" in str(exc), exc
else:
    raise AssertionError("connected to a server that never answered")
assert 0.9 < time.monotonic() - started < 30
"""
    )


def test_a_server_that_falls_silent_costs_its_connection_and_not_the_worker(postgres_url: str) -> None:
    run(
        """
connection = psycopg2.connect(url)
try:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(30)")
except psycopg2.OperationalError as exc:
    assert "no word from PostgreSQL within 1 s" in str(exc), exc
else:
    raise AssertionError("the query came back")
assert connection.closed, "a late answer could meet the next query"
""",
        postgres_url,
    )
