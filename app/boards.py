"""What a board does: fetch its sources, record what came, tell its history. The API, the pages, the jobs and the
command line all call these."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import current_app
from sqlalchemy import delete, insert, select

from .extensions import db
from .models import Board, Fetch, utc_now
from .upstream import HEARTBEAT, Fetcher, Outcome, Target


@dataclass(frozen=True)
class BoardPlan:
    """A board as plain values: what a fetch needs after the database connection went back to the pool."""

    id: int
    slug: str
    targets: tuple[Target, ...]


def fetcher() -> Fetcher:
    return current_app.extensions["fetcher"]


def plan(board: Board) -> BoardPlan:
    """Copy what a fetch needs and give the database connection back.

    After this, waiting for the sources holds no connection: with one held, the pool's size would be the number of
    boards the whole worker can fetch at once.
    """
    planned = BoardPlan(
        board.id, board.slug, tuple(Target(source.name, source.url, source.timeout_ms) for source in board.sources)
    )
    db.session.close()
    return planned


def results(planned: BoardPlan) -> dict[str, Any]:
    """Fetch all sources at once, record the outcomes, and return the document of `GET /api/boards/<slug>/results`."""
    started = time.monotonic()
    started_at = utc_now()
    by_name = {outcome.name: outcome for outcome in fetcher().fetch_all(planned.targets)}
    outcomes = [by_name[target.name] for target in planned.targets]
    elapsed_ms = round((time.monotonic() - started) * 1000)
    record(planned.id, started_at, outcomes)
    return {
        "board": planned.slug,
        "elapsed_ms": elapsed_ms,
        "sources": [outcome.as_dict() for outcome in outcomes],
    }


def stream(planned: BoardPlan, heartbeat_seconds: float) -> Iterator[Outcome | None]:
    """Each outcome the moment it arrives, None when nothing did for `heartbeat_seconds`; recorded at the end.

    Closing the iterator (the client left) ends the fetches that still run; what had arrived is recorded all the same.
    """
    started_at = utc_now()
    arrived: list[Outcome] = []
    fetches = fetcher().fetch_with_heartbeat(planned.targets, heartbeat_seconds)
    try:
        for item in fetches:
            if item is HEARTBEAT:
                yield None
            elif isinstance(item, Outcome):
                arrived.append(item)
                yield item
    finally:
        fetches.close()
        record(planned.id, started_at, arrived)


def record(board_id: int, started_at: datetime, outcomes: Sequence[Outcome]) -> None:
    """Store the outcomes in one transaction. A board that was deleted meanwhile has no history to add to."""
    if not outcomes:
        return
    with db.engine.begin() as connection:
        # The row is locked against deletion until our commit, so that the foreign keys below hold.
        if connection.scalar(select(Board.id).where(Board.id == board_id).with_for_update(key_share=True)) is None:
            return
        connection.execute(
            insert(Fetch),
            [
                {
                    "board_id": board_id,
                    "source_name": outcome.name,
                    "started_at": started_at,
                    "elapsed_ms": outcome.elapsed_ms,
                    "status": outcome.status,
                    "error": outcome.error,
                }
                for outcome in outcomes
            ],
        )


def purge_history(days: int) -> int:
    """Delete fetches older than `days`; returns how many."""
    with db.engine.begin() as connection:
        return connection.execute(delete(Fetch).where(Fetch.started_at < utc_now() - timedelta(days=days))).rowcount
