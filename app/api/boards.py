"""Boards: list, make, read, change, delete."""

from typing import Any

from flask import url_for
from flask_login import current_user

from .. import boards
from ..errors import Problem
from ..models import Board
from .auth import require_user
from .openapi import describe, no_content, one, page_of
from .pagination import paginate
from .routes import blueprint
from .schemas import BoardDocument, board_document, read_body


@blueprint.get("/boards")
@describe(
    "List boards",
    "Your own boards and the public ones, by slug.",
    answer=page_of(BoardDocument, "One page of boards."),
)
def list_boards() -> Any:
    found, headers = paginate(boards.visible_to(current_user))
    return [board_document(board) for board in found], headers


@blueprint.post("/boards")
@describe(
    "Make a board",
    "The new board is yours.",
    answer=one(BoardDocument, "The board was made; `Location` says where it is.", status=201, headers=("Location",)),
    body=BoardDocument,
    problems=(409,),
)
def make_board() -> Any:
    owner = require_user()
    document = read_body(BoardDocument)
    board = Board(owner_id=owner.id)
    save(board, document)
    return board_document(board), 201, {"Location": url_for("api.read_board", slug=board.slug)}


@blueprint.get("/boards/<slug>")
@describe("Read a board", answer=one(BoardDocument, "The board."))
def read_board(slug: str) -> Any:
    return board_document(readable_board(slug))


@blueprint.put("/boards/<slug>")
@describe(
    "Replace a board",
    "All of it at once, or nothing: slug, title and sources become what is sent. History stays.",
    answer=one(BoardDocument, "The board as it is now."),
    body=BoardDocument,
    problems=(403, 409),
)
def replace_board(slug: str) -> Any:
    require_user()
    document = read_body(BoardDocument)
    board = own_board(slug)
    save(board, document)
    return board_document(board)


@blueprint.delete("/boards/<slug>")
@describe(
    "Delete a board",
    "With its sources and its history.",
    answer=no_content("The board is gone."),
    problems=(403,),
)
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
