import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app import boards
from app.extensions import db
from app.models import Board, Fetch, utc_now
from app.upstream import Outcome, Target
from tests.app.api.upstreams import answering, hanging, upstream

TARGET = Target("it", "http://127.0.0.1:1/", 1000)


@pytest.fixture
def context(app: Flask) -> Iterator[Flask]:
    with app.app_context():
        yield app


@pytest.fixture
def board(context: Flask) -> Board:
    return saved("mine")


def saved(slug: str, targets: tuple[Target, ...] = (TARGET,), **values: Any) -> Board:
    made = Board(**values)
    boards.save(made, slug=slug, title="Mine", is_public=True, targets=targets)
    return made


def test_plan_gives_the_connection_back(board: Board) -> None:
    boards.find("mine")
    assert db.engine.pool.checkedout() == 1

    planned = boards.plan(board)

    assert db.engine.pool.checkedout() == 0
    assert planned.targets == (TARGET,)


def test_taken_slug_leaves_both_boards_as_they_were(board: Board) -> None:
    other = saved("other")

    with pytest.raises(boards.SlugTaken):
        boards.save(other, slug="mine", title="Changed", is_public=False, targets=[])

    assert [(kept.slug, kept.title, len(kept.sources)) for kept in db.session.scalars(select(Board))] == [
        ("mine", "Mine", 1),
        ("other", "Mine", 1),
    ]


def test_board_of_an_account_that_is_gone_is_not_saved(context: Flask) -> None:
    with pytest.raises(boards.OwnerVanished):
        saved("mine", owner_id=123_456)


def test_results_are_recorded_in_one_go(board: Board, count: Callable[[str], int]) -> None:
    with upstream(answering()) as server:
        boards.save(
            board, slug="mine", title="Mine", is_public=True, targets=[TARGET, Target("good", server.url(), 5000)]
        )
        boards.results(boards.plan(board))

    with db.engine.connect() as connection:
        rows = connection.execute(select(Fetch.source_name, Fetch.status, Fetch.error).order_by(Fetch.id)).all()
    assert [tuple(row) for row in rows] == [("it", None, "connection refused"), ("good", 200, None)]


def test_results_are_answered_though_they_can_not_be_recorded(
    board: Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*args: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(boards, "record", down)

    with caplog.at_level(logging.ERROR):
        document = boards.results(boards.plan(board))

    assert document["sources"][0]["error"] == "connection refused"
    assert "fetches not recorded" in caplog.text


def test_stream_that_is_closed_records_what_had_arrived(board: Board, count: Callable[[str], int]) -> None:
    with upstream(answering()) as good, upstream(hanging) as slow:
        targets = (Target("slow", slow.url(), 60_000), Target("good", good.url(), 5000))
        fetch = boards.LiveFetch(boards.BoardPlan(board.id, "mine", targets), heartbeat_seconds=5)
        items = fetch.outcomes()
        first = next(items)
        items.close()
        fetch.record()
        fetch.record()

    assert first is not None
    assert first.name == "good"
    assert count("fetches") == 1


def test_nothing_is_held_against_a_source_that_had_no_time(board: Board, count: Callable[[str], int]) -> None:
    boards.record(board.id, utc_now(), [Outcome("it", 5, error="given up", is_given_up=True)])

    assert count("fetches") == 0


def test_stream_that_never_began_leaves_nothing_behind(board: Board, count: Callable[[str], int]) -> None:
    fetch = boards.LiveFetch(boards.plan(board), heartbeat_seconds=5)
    fetch.outcomes().close()
    fetch.record()

    assert count("fetches") == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_records_of_one_board_do_not_wait_for_each_other(board: Board, count: Callable[[str], int]) -> None:
    """The first has its lock on the board while the second records and commits."""
    with db.engine.begin() as first:
        first.execute(select(Board.id).where(Board.id == board.id).with_for_update(read=True, key_share=True))
        boards.record(board.id, utc_now(), [Outcome("it", 5, status=200)])

        assert count("fetches") == 1


def test_deletion_waits_for_a_record_that_is_under_way(board: Board) -> None:
    lock_of_record = select(Board.id).where(Board.id == board.id).with_for_update(read=True, key_share=True)
    lock_of_deletion = select(Board.id).where(Board.id == board.id).with_for_update(nowait=True)

    with db.engine.begin() as recording, db.engine.connect() as deleting:
        recording.execute(lock_of_record)

        with pytest.raises(OperationalError, match="could not obtain lock"):
            deleting.execute(lock_of_deletion)


def test_name_that_the_database_can_not_even_ask_for_is_no_board(context: Flask) -> None:
    assert boards.find("nul\0") is None
