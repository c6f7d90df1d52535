"""psycopg2 in processes patched as the server's are; tests/greenroom/waits/test_postgres.py has the rest."""

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
