"""API tokens as the store knows them."""

from sqlalchemy import select

from app.extensions import db
from app.models import ApiToken


def token_of(text: str) -> ApiToken | None:
    return db.session.scalar(select(ApiToken).where(ApiToken.token_hash == ApiToken.hash(text)))
