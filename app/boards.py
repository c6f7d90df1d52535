"""The operations on boards: find and save one, fetch its sources, record the answers, tell its history.

The API, the pages, the jobs and the command line all call these.
"""

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import current_app
from sqlalchemy import Select, insert, or_, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import selectinload
from werkzeug.exceptions import Conflict, Forbidden, NotFound

from .extensions import db
from .logs import first_line
from .models import Board, Fetch, Source, utc_now
from .upstream import Fetcher, Outcome, Target

logger = logging.getLogger(__name__)


class SlugTaken(Conflict):
    """Another board has this slug already."""


class OwnerVanished(Conflict):
    description = "The account was deleted while the board was being saved."


@dataclass(frozen=True)
class BoardPlan:
    """A board as plain values: what a fetch needs after the database connection went back to the pool."""

    id: int
    slug: str
    targets: tuple[Target, ...]


def visible_to(user: Any) -> Select[tuple[Board]]:
    """The boards that `user` may read, by slug, with their sources: the user's own and the public ones."""
    is_visible = Board.is_public
    if user.is_authenticated:
        is_visible = or_(Board.is_public, Board.owner_id == user.id)
    return select(Board).where(is_visible).options(selectinload(Board.sources)).order_by(Board.slug)


def history_of(board: Board) -> Select[tuple[Fetch]]:
    """The recorded fetches of a board, newest first."""
    return select(Fetch).where(Fetch.board_id == board.id).order_by(Fetch.started_at.desc(), Fetch.id.desc())


def find(slug: str, *, for_update: bool = False) -> Board | None:
    """The board with this slug. `for_update` keeps others from editing or deleting it until our commit."""
    if "\0" in slug:
        return None  # PostgreSQL has no such text
    query = select(Board).where(Board.slug == slug)
    return db.session.scalar(query.with_for_update() if for_update else query)


def readable_by(user: Any, slug: str, *, for_update: bool = False) -> Board:
    """As `find`. Raises NotFound, also for a private board of somebody else: that there is one is their secret."""
    board = find(slug, for_update=for_update)
    if board is None or not board.is_readable_by(user):
        raise NotFound("There is no such board, or it is private and belongs to somebody else.")
    return board


def owned_by(user: Any, slug: str, *, for_update: bool) -> Board:
    """As `find`. Raises NotFound or Forbidden unless the board is the user's."""
    board = readable_by(user, slug, for_update=for_update)
    if not board.is_owned_by(user):
        raise Forbidden("This board is not yours; only its owner can change it.")
    return board


def save(board: Board, *, slug: str, title: str, is_public: bool, targets: Sequence[Target]) -> None:
    """Give a new or an existing board these values and commit, all or nothing. History stays.

    Raises SlugTaken or OwnerVanished. An existing board should have been found `for_update`.
    """
    try:
        board.slug, board.title, board.is_public = slug, title, is_public
        board.sources = [
            Source(position=position, name=target.name, url=target.url, timeout_ms=target.timeout_ms)
            for position, target in enumerate(targets)
        ]
        db.session.add(board)
        db.session.commit()
    except IntegrityError as exc:
        db.session.rollback()
        # The constraint decides and not a look beforehand: of two that come at once, one gets the slug.
        if exc.orig.diag.constraint_name == "uq_boards_slug":  # type: ignore[union-attr]
            raise SlugTaken(f"There is a board {slug!r} already; choose another slug.") from exc
        if exc.orig.diag.constraint_name == "fk_boards_owner_id_users":  # type: ignore[union-attr]
            raise OwnerVanished from exc
        raise


def remove(board: Board) -> None:
    """Delete a board with its sources and history."""
    db.session.delete(board)
    db.session.commit()


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
    """Fetch all sources at once, record the outcomes; returns the document of `GET /api/boards/<slug>/results`."""
    started = time.monotonic()
    started_at = utc_now()
    by_name = {outcome.name: outcome for outcome in fetcher().fetch_all(planned.targets)}
    outcomes = [by_name[target.name] for target in planned.targets]
    elapsed_ms = round((time.monotonic() - started) * 1000)
    record_or_log(planned, started_at, outcomes)
    return {
        "board": planned.slug,
        "elapsed_ms": elapsed_ms,
        "sources": [outcome.as_dict() for outcome in outcomes],
    }


class LiveFetch:
    """A fetch of all sources whose outcomes are handed on one by one.

    It is recorded at the end of `outcomes`. A caller that may stop before that calls `record` as well, when it is over.
    """

    def __init__(self, planned: BoardPlan, heartbeat_seconds: float) -> None:
        self.planned = planned
        self.heartbeat_seconds = heartbeat_seconds
        self.started_at = utc_now()
        self.arrived: list[Outcome] = []

    def outcomes(self) -> Generator[Outcome | None]:
        """Each outcome the moment it arrives, None when nothing did for `heartbeat_seconds`.

        Closing the iterator (the client left) ends the fetches that still run.
        """
        with closing(fetcher().fetch_all(self.planned.targets, self.heartbeat_seconds)) as outcomes:
            for outcome in outcomes:
                if outcome is not None:
                    self.arrived.append(outcome)
                yield outcome
        self.record()

    def record(self) -> None:
        """Store what has arrived and is not stored yet."""
        arrived, self.arrived = self.arrived, []
        record_or_log(self.planned, self.started_at, arrived)


def record_or_log(planned: BoardPlan, started_at: datetime, outcomes: Sequence[Outcome]) -> None:
    """Store the outcomes. If the database fails just now, whoever waited for the sources gets the answers anyway."""
    try:
        record(planned.id, started_at, outcomes)
    except SQLAlchemyError as exc:
        logger.error("fetches not recorded", extra={"board": planned.slug, "reason": first_line(exc)})


def record(board_id: int, started_at: datetime, outcomes: Sequence[Outcome]) -> None:
    """Store the outcomes in one transaction. A board that was deleted meanwhile has no history to add to."""
    outcomes = [outcome for outcome in outcomes if not outcome.is_given_up]
    if not outcomes:
        return
    # The row is locked against deletion until our commit, so that the foreign keys below hold. KEY SHARE is the lock
    # those take themselves: fetches of one board do not wait for each other.
    board = select(Board.id).where(Board.id == board_id).with_for_update(read=True, key_share=True)
    with db.engine.begin() as connection:
        if connection.scalar(board) is None:
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
