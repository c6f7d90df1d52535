"""The last seven days on disk: what the server did, what was wrong with it, and what was done to it.

    samples     every 10 s for a day, every 5 min for a week
    routes      every 5 min for a week: how many requests of each route, how many failed, how long they took
    incidents   each cause with its beginning and its end
    marks       reloads, workers that died, recordings

One SQLite file for each server, written by one thread and read by the page's threads. It is bounded in rows and in
pages, so at most some 40 MB. It survives restarts; a file that can't be written or read costs the history and
nothing else: what failed is said once in the log.
"""

import logging
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .incidents import Incident

logger = logging.getLogger(__name__)

VERSION = 1
DAY_SECONDS = 86_400.0
# Step of the samples: how long they are kept.
KEPT_SECONDS = {10: DAY_SECONDS, 300: 7 * DAY_SECONDS}
ROUTE_STEP_SECONDS = 300
# 4,096 bytes each.
MOST_PAGES = 10_000
MOST_WAITING = 1_000
BUSY_SECONDS = 5.0
VALUES = (
    "requests",
    "errors",
    "shed",
    "expired",
    "in_flight",
    "lag_seconds",
    "cpu_ratio",
    "p50",
    "p95",
    "p99",
    "rss_bytes",
    "workers",
)
SCHEMA = f"""
create table if not exists samples (step integer, at integer, {", ".join(f"{name} real" for name in VALUES)},
    primary key (step, at)) without rowid;
create table if not exists routes (at integer, route text, count real, errors real, seconds real, p95 real,
    primary key (at, route)) without rowid;
create table if not exists incidents (key text primary key, cause text, level text, sentence text, do text,
    began real, ended real) without rowid;
create table if not exists marks (at real, kind text, text text, primary key (at, kind, text)) without rowid;
"""
# Of a process that was killed: an incident lasted at most until the last sample.
END_WHAT_WAS_OPEN = """
update incidents set ended = max(began, coalesce((select max(at) from samples), began)) where ended is null
"""
Statement = tuple[str, Sequence[Any]]


def file_in(folder: Path, bind: Iterable[str]) -> Path:
    """The file of the server that listens there: several servers may share a folder."""
    return folder / f"history-{re.sub(r'[^A-Za-z0-9]+', '-', ' '.join(bind)).strip('-')[:80] or 'server'}.sqlite3"


class History:
    """Writes what it is given, in a thread of its own: a disk that hangs must not stop the page.

    Runs on: any thread of the ops process.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self.wall = wall
        self.failure = ""
        self._waiting: queue.Queue[list[Statement] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()
        self._put([(END_WHAT_WAS_OPEN, ())])

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(BUSY_SECONDS)

    def sample(self, step: int, at: float, values: Mapping[str, float | None]) -> None:
        columns = ", ".join(("step", "at", *VALUES))
        marks = ", ".join("?" * (len(VALUES) + 2))
        row = (step, int(at) // step * step, *(values.get(name) for name in VALUES))
        self._put([(f"insert or replace into samples ({columns}) values ({marks})", row)])

    def routes(self, at: float, rows: Iterable[tuple[str, float, float, float, float | None]]) -> None:
        """(route, count, errors, seconds, p95) of the 5 minutes that end at `at`."""
        moment = int(at) // ROUTE_STEP_SECONDS * ROUTE_STEP_SECONDS
        self._put([("insert or replace into routes values (?, ?, ?, ?, ?, ?)", (moment, *row)) for row in rows])

    def incident(self, incident: Incident) -> None:
        row = (
            incident.key,
            incident.cause,
            incident.level,
            incident.sentence,
            incident.do,
            incident.began,
            incident.ended,
        )
        self._put([("insert or replace into incidents values (?, ?, ?, ?, ?, ?, ?)", row)])

    def mark(self, at: float, kind: str, text: str) -> None:
        self._put([("insert or ignore into marks values (?, ?, ?)", (at, kind, text))])

    def read(self, since: float, until: float) -> dict[str, Any]:
        """Return the rows of that time, in the finest step that is kept for all of it. Unix times."""
        step = 10 if since >= self.wall() - KEPT_SECONDS[10] else 300
        found: dict[str, Any] = {"since": since, "until": until, "step": step}
        found.update(samples=[], routes=[], incidents=[], marks=[])
        rows, failure = self._select(_queries(step, since, until))
        return {**found, **rows, "failure": failure or self.failure}

    def route(self, route: str, since: float, until: float) -> dict[str, Any]:
        """One route, beside the same hours of the day before."""
        query = "select * from routes where route = ? and at between ? and ? order by at"
        before = (route, since - DAY_SECONDS, until - DAY_SECONDS)
        rows, _ = self._select({"now": (query, (route, since, until)), "day_before": (query, before)})
        for row in rows.get("day_before", []):
            row["at"] += DAY_SECONDS
        return {"route": route, "since": since, "until": until, "now": [], "day_before": [], **rows}

    def _select(self, queries: Mapping[str, Statement]) -> tuple[dict[str, list[dict[str, Any]]], str]:
        """Return the rows of each query; none, and the reason, where they can't be read."""
        if not self.path.exists():
            return {}, ""
        try:
            with closing(self._connect(read_only=True)) as database:
                database.row_factory = sqlite3.Row
                found = {name: [dict(row) for row in database.execute(*query)] for name, query in queries.items()}
        except sqlite3.Error as exc:
            return {}, f"{self.path} can't be read: {exc}"
        return found, ""

    def _put(self, statements: list[Statement]) -> None:
        if self._thread is None or not statements:
            return
        try:
            self._waiting.put_nowait(statements)
        except queue.Full:
            self._fail("the disk takes nothing; what happens meanwhile is not remembered")

    def _run(self) -> None:
        database: sqlite3.Connection | None = None
        swept_at = 0.0
        while True:
            statements = self._waiting.get()
            if statements is None:
                if database is not None:
                    database.close()
                return
            try:
                if database is None:
                    database = self._open()
                with database:
                    for query, arguments in statements:
                        database.execute(query, arguments)
                    if self.wall() - swept_at > ROUTE_STEP_SECONDS or swept_at > self.wall():
                        swept_at = self.wall()
                        for query, arguments in _sweeping(swept_at):
                            database.execute(query, arguments)
                self.failure = ""
            except (sqlite3.Error, OSError) as exc:
                self._fail(f"{self.path} can't be written: {exc}")
                if database is not None:
                    database.close()
                database = None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._prepared()
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise  # it is locked, or the disk is full: the file itself is good
            aside = self.path.with_suffix(f".broken-{int(self.wall())}")
            logger.warning("%s is no database any more (%s): it is put aside as %s", self.path, exc, aside.name)
            self.path.rename(aside)
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        database = self._connect()
        try:
            (version,) = database.execute("pragma user_version").fetchone()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"it was written by another version ({version})")
            # Readers are not in the way of the writer; the last seconds may be lost with the machine.
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = normal")
            database.execute(f"pragma max_page_count = {MOST_PAGES}")
            database.executescript(SCHEMA)
            database.execute(f"pragma user_version = {VERSION}")
        except BaseException:
            database.close()
            raise
        return database

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)

    def _fail(self, words: str) -> None:
        if not self.failure:
            logger.warning(
                "the history of the ops page stands still: %s; GREENROOM_HISTORY_PATH names its folder", words
            )
        self.failure = words


def _queries(step: int, since: float, until: float) -> dict[str, Statement]:
    period = (since, until)
    return {
        "samples": (
            f"select at, {', '.join(VALUES)} from samples where step = ? and at between ? and ? order by at",
            (step, *period),
        ),
        "routes": ("select * from routes where at between ? and ? order by at, route", period),
        # An incident belongs to the time in which any part of it lies.
        "incidents": (
            "select * from incidents where began <= ? and coalesce(ended, ?) >= ? order by began",
            (until, until, since),
        ),
        "marks": ("select * from marks where at between ? and ? order by at", period),
    }


def _sweeping(now: float) -> list[Statement]:
    week = now - max(KEPT_SECONDS.values())
    too_old: list[Statement] = [
        ("delete from samples where step = ? and at < ?", (step, now - kept)) for step, kept in KEPT_SECONDS.items()
    ]
    return [
        *too_old,
        ("delete from routes where at < ?", (week,)),
        ("delete from incidents where coalesce(ended, began) < ?", (week,)),
        ("delete from marks where at < ?", (week,)),
    ]
