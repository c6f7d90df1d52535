"""Code with a database of SQLite in a patched process of its own."""

from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


PREPARED = f"""
import warnings; warnings.filterwarnings("ignore", "Passing more than 1 positional argument")  # from Python 3.13 on
import sys; sys.path.insert(0, {str(ROOT)!r})
from greenroom import patching
from greenroom.settings import Settings
patching.patch(Settings())
import sqlite3, time
import gevent

PATH = sys.argv[1]
LONG_WAIT_SECONDS = 30
turns = []

def turn():
    while True:
        gevent.sleep(0.002)
        turns.append(time.monotonic())

gevent.spawn(turn)

def longest_turn():
    return max(after - before for before, after in zip(turns, turns[1:]))

with sqlite3.connect(PATH) as first:
    first.execute("CREATE TABLE visits (number, name)")

def locked(call, *args):
    "How long it took until `call` said that the database is locked."
    began = time.monotonic()
    try:
        call(*args)
    except sqlite3.OperationalError as exc:
        assert (str(exc), exc.sqlite_errorname) == ("database is locked", "SQLITE_BUSY"), exc
        return time.monotonic() - began
    raise AssertionError("it was not locked")
"""


Check = Callable[[str], None]
