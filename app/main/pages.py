"""The pages that show boards: all of them, and one with its results."""

from typing import Any

from flask import render_template, request
from flask_login import current_user
from sqlalchemy import func, select

from .. import boards, fetch_limits
from ..extensions import db
from ..models import Board, Source
from ..seed import DEMO_SLUG
from .charts import charts
from .routes import blueprint

BOARDS_PER_PAGE = 24
OWN_BOARDS_SHOWN = 200
LAST_PAGE = 1000
QUARTERS = (1, 1.5, 2, 2.5, 3, 4, 5, 7.5)


@blueprint.get("/")
def index() -> Any:
    """Your boards and the public ones, the demo board before all."""
    page = min(max(request.args.get("page", 1, type=int), 1), LAST_PAGE)
    demo = summaries(select(Board).where(is_demo()).limit(1))
    own = []
    others = select(Board).where(Board.is_public, ~is_demo()).order_by(Board.id.desc())
    if current_user.is_authenticated:
        mine = Board.owner_id == current_user.id
        own = summaries(select(Board).where(mine).order_by(Board.id.desc()).limit(OWN_BOARDS_SHOWN))
        others = others.where(~mine | Board.owner_id.is_(None))
    public = summaries(others.offset((page - 1) * BOARDS_PER_PAGE).limit(BOARDS_PER_PAGE + 1))
    return render_template(
        "main/index.html",
        demo=demo,
        own=own,
        public=public[:BOARDS_PER_PAGE],
        page=page,
        has_next=len(public) > BOARDS_PER_PAGE and page < LAST_PAGE,
    )


@blueprint.get("/boards/<slug>")
def board(slug: str) -> Any:
    """One board. `?fetch=now` fetches before answering, for browsers without JavaScript; others get the stream."""
    shown = boards.readable_by(current_user, slug)
    can_edit = shown.is_owned_by(current_user)
    names = [source.name for source in shown.sources]
    results = None
    outcomes = {}
    if request.args.get("fetch") == "now":
        planned = boards.plan(shown)
        fetch_limits.check(planned)
        results = boards.results(planned)
        outcomes = {outcome["name"]: outcome for outcome in results["sources"]}
    return render_template(
        "main/board.html",
        board=shown,
        can_edit=can_edit,
        charts=charts(shown.id, names),
        results=results,
        outcomes=outcomes,
        scale_ms=scale_for(results["elapsed_ms"] if results else 0),
    )


def summaries(query: Any) -> list[dict[str, Any]]:
    """Return the rows of a list of boards, read in one query."""
    found = query.subquery()
    count = select(func.count()).where(Source.board_id == found.c.id).scalar_subquery()
    rows = select(found.c.slug, found.c.title, found.c.is_public, count.label("source_count"))
    return [dict(row._mapping) for row in db.session.execute(rows.order_by(found.c.id.desc()))]


def is_demo() -> Any:
    return (Board.slug == DEMO_SLUG) & Board.owner_id.is_(None)


def scale_for(ms: int) -> int:
    """Where the common time axis ends: at or after `ms`, in four round quarters. `static/board.js` does the same."""
    unit = 10
    while True:
        for quarter in QUARTERS:
            if 4 * quarter * unit >= ms:
                return int(4 * quarter * unit)
        unit *= 10
