"""Links that let the owner of an address choose a new password: signed, for an hour, for one use.

A link carries the fingerprint of the password it replaces. Once that password is changed, by this link or another way,
no link that was sent before fits any more; nothing has to be stored.
"""

import hmac
from typing import Any

from flask import current_app, url_for
from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy import select

from .. import jobs
from ..extensions import db
from ..models import User

LIFETIME_SECONDS = 3600

TEXT = """Somebody, probably you, asked for a new password for the account {email}.

Choose one on this page within {minutes} minutes:

{link}

If it was not you, do nothing: the password stays as it is.
"""


def send(user: User) -> None:
    """Queue the mail with the link. The address in it is PUBLIC_URL's: a request's Host header is anybody's."""
    path = url_for("auth.reset_password", token=token_for(user))
    link = current_app.extensions["config"].PUBLIC_URL + path
    jobs.enqueue(
        "send_mail",
        to=user.email,
        subject="Choose a new password",
        text=TEXT.format(email=user.email, minutes=LIFETIME_SECONDS // 60, link=link),
    )


def token_for(user: User) -> str:
    return serializer().dumps({"user": user.id, "password": user.password_fingerprint})


def user_of(token: str, *, lock: bool) -> User | None:
    """The user whose link this is; None when it is forged, too old or used.

    `lock` keeps others from changing the user until our commit.
    """
    try:
        content: Any = serializer().loads(token, max_age=LIFETIME_SECONDS)
    except BadData:
        return None
    query = select(User).where(User.id == content["user"])
    user = db.session.scalar(query.with_for_update() if lock else query)
    if user is None or not hmac.compare_digest(user.password_fingerprint, content["password"]):
        return None
    return user


def serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.secret_key, salt="reset-password")
