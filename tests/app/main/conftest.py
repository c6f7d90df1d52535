from collections.abc import Callable

import pytest
from flask import Flask

from app.extensions import db
from app.models import Board, Source
from tests.app.forms import Browser


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app.test_client())


@pytest.fixture
def make_board(app: Flask) -> Callable[..., int]:
    """Makes a board and returns its id: `make_board("city", owner_id=1, sources={"weather": "http://..."})`."""

    def make(
        slug: str,
        *,
        owner_id: int | None = None,
        is_public: bool = True,
        sources: dict[str, str] | None = None,
        title: str | None = None,
    ) -> int:
        urls = {"weather": "http://127.0.0.1:1/"} if sources is None else sources
        with app.app_context():
            board = Board(slug=slug, title=title or f"The {slug} board", is_public=is_public, owner_id=owner_id)
            board.sources = [Source(position=i, name=name, url=url) for i, (name, url) in enumerate(urls.items())]
            db.session.add(board)
            db.session.commit()
            return board.id

    return make
