"""The demo board, so that the first page of a new installation shows something working."""

from sqlalchemy import select

from .extensions import db
from .models import Board, Source

DEMO_SLUG = "demo"


def demo_board(public_url: str, *, is_told: bool = True) -> None:
    """Make the demo board, or point it at `public_url` if that has changed.

    `is_told` False: `public_url` is only the default, as in a `flask` command beside a server that listens elsewhere;
    a board that is there is left as the server made it.
    """
    wanted = demo_sources(public_url)
    board = db.session.scalar(select(Board).where(Board.slug == DEMO_SLUG).with_for_update())
    if board is not None and board.owner_id is not None:
        return  # somebody's own board that happens to have the name
    if board is not None and not is_told:
        return
    if board is None:
        board = Board(slug=DEMO_SLUG, title="Demo: slow sources, answered at once", is_public=True)
        db.session.add(board)
    if [(source.name, source.url, source.timeout_ms) for source in board.sources] != wanted:
        board.sources = [
            Source(position=position, name=name, url=url, timeout_ms=timeout_ms)
            for position, (name, url, timeout_ms) in enumerate(wanted)
        ]
    db.session.commit()


def demo_sources(public_url: str) -> list[tuple[str, str, int]]:
    """(name, URL, timeout in milliseconds) of each."""
    demo = f"{public_url}/demo"
    return [
        ("weather", f"{demo}/delay/120", 2000),
        ("trains", f"{demo}/delay/250", 2000),
        ("orders", f"{demo}/delay/400", 2000),
        ("inventory", f"{demo}/delay/600", 2000),
        ("payments", f"{demo}/delay/900", 2000),
        ("catalogue", f"{demo}/payload/2000", 2000),
        ("broken", f"{demo}/error/503", 2000),
        ("too slow", f"{demo}/delay/5000", 1000),
    ]
