"""The caller of the API: a bearer token, a browser session, or an anonymous client."""

from datetime import timedelta
from typing import Any

from flask import Response, g, request
from flask_login import current_user
from sqlalchemy import select, update
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from ..extensions import csrf, db
from ..models import ApiToken, User, utc_now
from .routes import blueprint

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# The description is for everybody, also while the database is down.
OPEN_ENDPOINTS = ("api.openapi_document",)
LAST_USED_ACCURACY = timedelta(minutes=1)


@blueprint.before_request
def authenticate() -> None:
    """Settle who asks before any view runs.

    1. A bearer token: it must be valid, also where nobody needs one, and it wins over a session. Tokens open the API
       and nothing else: no page, and so no page that makes more tokens.
    2. A session: methods that change something need its CSRF token, in the header X-CSRFToken.
    3. Neither: nobody; the views say what that may see.
    """
    if request.endpoint in OPEN_ENDPOINTS:
        return
    # Other schemes are not ours: a proxy in front may ask for Basic.
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        # Where Flask-Login keeps its user. Its own order is the session first.
        g._login_user = user_of_token(token.strip())
    elif request.method not in SAFE_METHODS and current_user.is_authenticated:
        csrf.protect()


@blueprint.after_request
def keep_no_copy(response: Response) -> Response:
    """Forbid caches to show one caller's answer to the next."""
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def user_of_token(text: str) -> User:
    """The user behind the bearer token. Raises Unauthorized if nobody is."""
    user_id = use_token(text)
    user = None if user_id is None else db.session.get(User, user_id)
    if user is None:
        raise unauthorized("This API token is unknown or was revoked.", error="invalid_token")
    return user


def use_token(text: str) -> int | None:
    """The id of the user whose token this is; None if it is nobody's. Notes the use, at most once a minute.

    In a transaction of its own, before the request's begins: a view that fails must not undo the note, and a request
    that held one connection while it waited for a second could lock up the pool.
    """
    now = utc_now()
    query = select(ApiToken.id, ApiToken.user_id, ApiToken.last_used_at)
    with db.engine.begin() as connection:
        token = connection.execute(query.where(ApiToken.token_hash == ApiToken.hash(text))).one_or_none()
        if token is None:
            return None
        if token.last_used_at is None or token.last_used_at < now - LAST_USED_ACCURACY:
            connection.execute(update(ApiToken).where(ApiToken.id == token.id).values(last_used_at=now))
    return token.user_id


def require_user() -> Any:
    """Return the signed-in user. Raises Unauthorized if there is none."""
    if not current_user.is_authenticated:
        raise unauthorized("Sign in, or send an API token: `Authorization: Bearer <token>`.")
    return current_user


def unauthorized(detail: str, **challenge: str) -> Unauthorized:
    return Unauthorized(detail, www_authenticate=WWWAuthenticate("bearer", {"realm": "boards", **challenge}))
