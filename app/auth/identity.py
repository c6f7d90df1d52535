"""The signed-in user: from a session to a user and back, and where visitors go who must sign in first."""

import hmac
import re
from typing import Any

from flask import abort, current_app, redirect, request, session, url_for
from flask_login import current_user, login_user, logout_user

from ..extensions import db, login_manager
from ..models import User
from ..sessions import renew_id
from .routes import blueprint

# A path on this server. Browsers read `//host`, `/\host` and `/<tab>/host` as another server's address.
LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
SESSION_USER = re.compile(r"([0-9]{1,9})\.([0-9a-f]{32})")

# Flask-Login's own protection ties a session to an address and a browser version, which both change while people
# travel and update. Here a session is a random id that the browser keeps; there is nothing more to prove.
login_manager.session_protection = None


@login_manager.user_loader
def load_user(session_user: str) -> User | None:
    """The user that a session names, unless the password has been changed since."""
    match = SESSION_USER.fullmatch(session_user)
    user = db.session.get(User, int(match[1])) if match else None
    if user is None or not hmac.compare_digest(user.password_fingerprint, match[2]):
        return None
    return user


@login_manager.unauthorized_handler
def ask_to_sign_in() -> Any:
    """A program gets a 401, a person the sign-in form and then the page they wanted."""
    if request.path.startswith("/api/"):
        abort(401, "Sign in, or send an API token: `Authorization: Bearer <token>`.")
    wanted = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("auth.sign_in", next=wanted))


@blueprint.app_context_processor
def lazy_current_user() -> dict[str, Any]:
    """`current_user` for templates, looked up when it is used: an error page must not need the database."""
    return {"current_user": current_user}


@blueprint.after_request
def keep_no_copy(response: Any) -> Any:
    """Nothing of these pages stays in a cache or behind the back button: they show addresses, links and tokens."""
    response.headers["Cache-Control"] = "no-store"
    return response


def begin_session(user: User) -> None:
    """Sign `user` in, in a session that has nothing in common with the one before."""
    session.clear()
    login_user(user)
    renew_id(current_app, session)


def end_session() -> None:
    """Sign out: what the session knew is gone, here and in the store."""
    logout_user()
    session.clear()
    renew_id(current_app, session)


def local_path(target: str | None, default: str) -> str:
    """`target` if it is a path on this server, else `default`: no link may send people elsewhere through us."""
    return target if target and LOCAL_PATH.fullmatch(target) else default
