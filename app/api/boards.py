"""Boards: list, make, read, change, delete."""

from typing import Any

from flask import url_for
from flask_login import current_user

from .. import boards
from ..errors import Problem
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
    save(board, document)
    return board_document(board), 201, {"Location": url_for("api.read_board", slug=board.slug)}


@blueprint.get("/boards/<slug>")
def read_board(slug: str) -> Any:
    return board_document(readable_board(slug))


@blueprint.put("/boards/<slug>")
def replace_board(slug: str) -> Any:
    require_user()
    document = read_body(BoardDocument)
    board = own_board(slug)
    save(board, document)
    return board_document(board)


@blueprint.delete("/boards/<slug>")
def delete_board(slug: str) -> Any:
    require_user()
    boards.remove(own_board(slug))
    return "", 204


def readable_board(slug: str) -> Board:
    """The board, if the caller may read it; a private board of somebody else is answered like none at all."""
    board = boards.find(slug)
    if board is None or not board.is_readable_by(current_user):
        raise no_board(slug)
    return board


def own_board(slug: str) -> Board:
    """The board, locked until the commit, if the caller may change it."""
    board = boards.find(slug, for_update=True)
    if board is None or not board.is_readable_by(current_user):
        raise no_board(slug)
    if not board.is_owned_by(current_user):
        raise Problem(403, "This board is not yours; only its owner can change it.")
    return board


def no_board(slug: str) -> Problem:
    return Problem(404, f"There is no board {slug[:64]!r}, or it is private and belongs to somebody else.")


def save(board: Board, document: BoardDocument) -> None:
    """Raises Problem 409 if the slug is another board's."""
    try:
        boards.save(board, **document.values())
    except boards.SlugTaken as exc:
        raise Problem(409, f"There is a board {document.slug!r} already; choose another slug.") from exc
    except boards.Vanished as exc:
        raise Problem(409, "The account was deleted while the board was being saved.") from exc
