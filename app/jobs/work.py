"""The jobs: plain functions that run in an application context, by Celery, on a thread, or from cron."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from flask import current_app
from flask_mailman import EmailMessage
from sqlalchemy import ColumnElement, delete, func, inspect, select, text

from .. import boards
from ..extensions import db
from ..models import Board, Fetch, RateLimitCounter, StoredSession, utc_now

logger = logging.getLogger(__name__)

BOARDS_AT_ONCE = 4
SWEEP_SECONDS = 240.0  # less than the five minutes until the next one
PURGE_BATCH_ROWS = 5000
# Celery's PostgreSQL broker keeps delivered messages in its table; a day is enough to look into a problem.
DELIVERED_MESSAGES_KEPT = timedelta(days=1)


def send_mail(to: str, subject: str, text: str) -> None:
    """Send one plain text message. Raises OSError (smtplib's errors are such) when the server does not take it."""
    message = EmailMessage(subject=subject, body=text, to=[to])
    message.message()  # refuses a line break in a header, before a connection or a file is opened for it
    message.send()
    logger.info("mail sent", extra={"subject": subject})


def refresh_all_boards(budget_seconds: float = SWEEP_SECONDS) -> dict[str, int]:
    """Fetch every board and record it; a board that fails spoils no other. Returns how many had which outcome.

    The ones not seen for longest come first, so what one sweep had to skip is first in the next.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    give_up_at = time.monotonic() + budget_seconds

    def refresh(board_id: int) -> str:
        if time.monotonic() >= give_up_at:
            return "skipped"
        try:
            with app.app_context():
                board = db.session.get(Board, board_id)
                if board is None:
                    return "skipped"  # deleted since
                boards.results(boards.plan(board))
        except Exception:  # whatever is wrong with one board, the others are still to be fetched
            logger.exception("board not refreshed", extra={"board_id": board_id})
            return "failed"
        return "refreshed"

    last_seen = select(func.max(Fetch.started_at)).where(Fetch.board_id == Board.id).scalar_subquery()
    ids = list(db.session.scalars(select(Board.id).order_by(last_seen.asc().nulls_first(), Board.id)))
    db.session.close()
    with ThreadPoolExecutor(max_workers=BOARDS_AT_ONCE, thread_name_prefix="sweep") as executor:
        counted = Counter(executor.map(refresh, ids))
    found = {outcome: counted[outcome] for outcome in ("refreshed", "failed", "skipped")}
    logger.info("boards swept", extra=found)
    return found


def purge() -> dict[str, int]:
    """Delete what nobody will ask for again; returns the number of rows by table."""
    now = utc_now()
    history = timedelta(days=current_app.extensions["config"].HISTORY_DAYS)
    deleted = {
        "fetches": purge_rows(Fetch, Fetch.started_at < now - history),
        "sessions": purge_rows(StoredSession, StoredSession.expires_at < now),
        "rate_limit_counters": purge_rows(RateLimitCounter, RateLimitCounter.window_ends_at < now),
        "kombu_message": purge_delivered_messages(),
    }
    logger.info("purged", extra=deleted)
    return deleted


def purge_rows(model: type[db.Model], condition: ColumnElement[bool]) -> int:
    """Delete in batches: one statement over a year of history would run into the statement timeout, again each day."""
    key = inspect(model).primary_key[0]
    total = 0
    while True:
        batch = select(key).where(condition).limit(PURGE_BATCH_ROWS).scalar_subquery()
        with db.engine.begin() as connection:
            deleted = connection.execute(delete(model).where(key.in_(batch))).rowcount
        total += deleted
        if deleted < PURGE_BATCH_ROWS:
            return total


def purge_delivered_messages() -> int:
    """Celery's PostgreSQL broker marks a message as delivered and never deletes it."""
    # Its column has no time zone and holds the worker's local time.
    before = datetime.now() - DELIVERED_MESSAGES_KEPT
    with db.engine.begin() as connection:
        if not inspect(connection).has_table("kombu_message"):
            return 0  # another broker, or none yet
        statement = text('DELETE FROM kombu_message WHERE NOT visible AND "timestamp" < :before')
        return connection.execute(statement, {"before": before}).rowcount


JOBS: dict[str, Callable[..., object]] = {
    "send_mail": send_mail,
    "refresh_all_boards": refresh_all_boards,
    "purge": purge,
}
