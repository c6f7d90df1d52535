"""Making, changing and deleting boards with forms."""

from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_login import current_user, login_required

from .. import boards
from ..models import Board
from .forms import BoardForm
from .routes import blueprint

UNPROCESSABLE = 422


@blueprint.route("/boards/new", methods=["GET", "POST"])
@login_required
def new_board() -> Any:
    if request.method == "GET":
        return edit_page(BoardForm().with_empty_rows())
    return save_or_show_again(Board(owner_id=current_user.id))


@blueprint.route("/boards/<slug>/edit", methods=["GET", "POST"])
@login_required
def edit_board(slug: str) -> Any:
    if request.method == "GET":
        board = boards.owned_by(current_user, slug, for_update=False)
        return edit_page(BoardForm.of_board(board), board.slug)
    return save_or_show_again(boards.owned_by(current_user, slug, for_update=True))


@blueprint.route("/boards/<slug>/delete", methods=["GET", "POST"])
@login_required
def delete_board(slug: str) -> Any:
    """Asks first: with its history a board can't be had back."""
    board = boards.owned_by(current_user, slug, for_update=request.method == "POST")
    if request.method == "GET":
        return render_template("main/delete_board.html", board=board)
    title = board.title
    boards.remove(board)
    flash(f"The board “{title}” is deleted.")
    return redirect(url_for("main.index"))


def save_or_show_again(board: Board) -> Any:
    """Do as the form's button says: change the rows, or save the board."""
    # The address before the form changed it; None while the board is not stored.
    slug = board.slug
    form = BoardForm.of_request(request.form)
    if form.change_rows(request.form.get("action", "")):
        return edit_page(form, slug)
    document = form.document()
    if document is not None:
        try:
            boards.save(board, **document.values())
            return redirect(url_for("main.board", slug=document.slug))
        except boards.SlugTaken:
            form.errors["slug"] = "Another board has this name; choose a different one."
    return edit_page(form, slug), UNPROCESSABLE


def edit_page(form: BoardForm, slug: str | None = None) -> str:
    return render_template("main/edit_board.html", form=form, slug=slug)
