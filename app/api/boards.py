"""Boards: list, make, read, change, delete."""

from typing import Any

from flask import url_for
from flask_login import current_user

from .. import boards
from ..models import Board
from .auth import require_user
from .pagination import paginate
from .routes import blueprint
from .schemas import BoardDocument, board_document, read_body


@blueprint.get("/boards")
def list_boards() -> Any:
    found, headers = paginate(boards.visible_to(current_user))
    return [board_document(board) for board in found], headers


@blueprint.post("/boards")
def make_board() -> Any:
    owner = require_user()
    document = read_body(BoardDocument)
    board = Board(owner_id=owner.id)
    boards.save(board, **document.values())
    return board_document(board), 201, {"Location": url_for("api.read_board", slug=board.slug)}


@blueprint.get("/boards/<slug>")
def read_board(slug: str) -> Any:
    return board_document(boards.readable_by(current_user, slug))


@blueprint.put("/boards/<slug>")
def replace_board(slug: str) -> Any:
    require_user()
    document = read_body(BoardDocument)
    board = boards.owned_by(current_user, slug, for_update=True)
    boards.save(board, **document.values())
    return board_document(board)


@blueprint.delete("/boards/<slug>")
def delete_board(slug: str) -> Any:
    require_user()
    boards.remove(boards.owned_by(current_user, slug, for_update=True))
    return "", 204
