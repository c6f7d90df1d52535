"""Sign up, sign in, sign out, reset a password."""

import secrets
from functools import cache
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_login import current_user
from sqlalchemy.exc import IntegrityError
from werkzeug.security import check_password_hash, generate_password_hash

from ..extensions import db
from ..models import User
from . import reset_links
from .forms import NewPasswordForm, ResetRequestForm, SignInForm, SignUpForm
from .identity import begin_session, end_session, local_path
from .rate_limits import Attempts, account_key, client_key
from .routes import blueprint

UNPROCESSABLE = 422


@blueprint.route("/sign-up", methods=["GET", "POST"])
def sign_up() -> Any:
    if current_user.is_authenticated:
        return redirect(url_for("main.index"))
    form = SignUpForm()
    if form.validate_on_submit():
        Attempts("sign-up", client_key()).use_one()
        user = create_user(form.email.data, form.password.data)
        if user is not None:
            begin_session(user)
            flash("Welcome! Make your first board, or look at the demo.")
            return redirect(local_path(request.args.get("next"), url_for("main.index")))
        form.email.errors = ["This address already has an account. Sign in, or reset the password."]
    return render_template("auth/sign_up.html", form=form), status_of(form)


@blueprint.route("/sign-in", methods=["GET", "POST"])
def sign_in() -> Any:
    wanted = local_path(request.args.get("next"), url_for("main.index"))
    if current_user.is_authenticated:
        return redirect(wanted)
    form = SignInForm()
    if form.validate_on_submit():
        attempts = Attempts("sign-in", client_key(), account_key(form.email.data))
        attempts.use_one()
        user = user_with(form.email.data, form.password.data)
        if user is not None:
            attempts.give_back()
            begin_session(user)
            return redirect(wanted)
        form.password.errors = ["The address or the password is wrong."]
    return render_template("auth/sign_in.html", form=form), status_of(form)


@blueprint.post("/sign-out")
def sign_out() -> Any:
    end_session()
    flash("You are signed out.")
    return redirect(url_for("main.index"))


@blueprint.route("/reset-password", methods=["GET", "POST"])
def request_reset() -> Any:
    """Ask for a reset link. The answer is the same whether the account exists or not."""
    form = ResetRequestForm()
    if not form.validate_on_submit():
        return render_template("auth/request_reset.html", form=form), status_of(form)
    Attempts("reset", client_key(), account_key(form.email.data)).use_one()
    user = User.by_email(form.email.data)
    if user is not None:
        reset_links.send(user)
    return render_template("auth/reset_sent.html", minutes=reset_links.LIFETIME_SECONDS // 60)


@blueprint.route("/reset-password/<token>", methods=["GET", "POST"])
def reset_password(token: str) -> Any:
    """The page behind the link: a new password, after which the link and all sessions of the user are over."""
    form = NewPasswordForm()
    # With the row locked until the commit, a link that is used twice at the same moment works once.
    user = reset_links.user_of(token, lock=request.method == "POST")
    if user is None:
        return render_template("auth/reset_invalid.html"), 410
    if not form.validate_on_submit():
        return render_template("auth/reset_password.html", form=form, email=user.email), status_of(form)
    user.set_password(form.password.data)
    db.session.commit()
    end_session()
    flash("Your password is changed, and everybody who was signed in to the account is signed out. Sign in again.")
    return redirect(url_for("auth.sign_in"))


def create_user(email: str, password: str) -> User | None:
    """The new user, stored; None when the address is taken, also by somebody who signs up this very moment."""
    if User.by_email(email) is not None:
        return None
    user = User(email=email)
    user.set_password(password)
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return None
    return user


def user_with(email: str, password: str) -> User | None:
    """The user with this address and password. Takes as long when there is no such address, so time tells nothing."""
    user = User.by_email(email)
    # Hashing takes a while; nobody else should wait for our connection meanwhile.
    password_hash = user.password_hash if user else unknown_users_hash()
    db.session.rollback()
    is_right = check_password_hash(password_hash, password)
    if user is None or not is_right:
        return None
    # Read again: the password may have been changed while we compared with the old one.
    return user if user.password_hash == password_hash else None


@cache
def unknown_users_hash() -> str:
    return generate_password_hash(secrets.token_hex())


def status_of(form: Any) -> int:
    """200 for a form that is shown for the first time, 422 for one that comes back with errors."""
    return UNPROCESSABLE if request.method == "POST" and form.errors else 200
