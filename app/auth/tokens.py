"""API tokens: list, create, revoke. The text of a token is shown once, in the answer that creates it."""

from typing import Any

from flask import abort, flash, redirect, render_template, url_for
from flask_login import current_user, login_required
from sqlalchemy import delete, func, select

from ..extensions import db
from ..models import ApiToken, User
from .forms import TokenForm
from .routes import blueprint
from .views import status_of

TOKENS_PER_USER = 50
LARGEST_ID = 2**31 - 1  # of an INTEGER column; anything above would be an error of the database's


@blueprint.route("/tokens", methods=["GET", "POST"])
@login_required
def tokens() -> Any:
    form = TokenForm()
    text = None
    if form.validate_on_submit():
        text = create_token(form.name.data)
        if text is None:
            form.name.errors = [f"You have {TOKENS_PER_USER} tokens already; revoke one first."]
        else:
            form = TokenForm(formdata=None)
    query = select(ApiToken).where(ApiToken.user_id == current_user.id).order_by(ApiToken.id.desc())
    return render_template("auth/tokens.html", form=form, text=text, tokens=db.session.scalars(query)), status_of(form)


@blueprint.post(f"/tokens/<int(max={LARGEST_ID}):token_id>/revoke")
@login_required
def revoke_token(token_id: int) -> Any:
    # Somebody else's token is answered as one that does not exist.
    gone = db.session.execute(
        delete(ApiToken).where(ApiToken.id == token_id, ApiToken.user_id == current_user.id)
    ).rowcount
    db.session.commit()
    if not gone:
        abort(404)
    flash("The token is revoked; nobody can use it any more.")
    return redirect(url_for("auth.tokens"))


def create_token(name: str) -> str | None:
    """The text of a new token of the current user; None when they have as many as one may have."""
    # The lock makes two requests of the same user take turns, so that both count right.
    user = db.session.scalar(select(User).where(User.id == current_user.id).with_for_update())
    count = db.session.scalar(select(func.count()).where(ApiToken.user_id == user.id))
    if count >= TOKENS_PER_USER:
        db.session.rollback()
        return None
    _, text = ApiToken.issue(user, name)
    db.session.commit()
    return text
