"""Server-side sessions: the cookie carries an id and nothing else.

In PostgreSQL by default, in Redis with REDIS_URL. Both are Flask-Session's; its own SQLAlchemy store is not used
because it creates its table at start-up and commits the request's database session, half-finished work included. This
one uses a short transaction of its own.
"""

import hashlib
from datetime import timedelta
from typing import Any

from flask import Flask, Request
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.redis import RedisSessionInterface
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from .config import Config
from .extensions import db
from .models import StoredSession, utc_now

# These answer without knowing who asks: no session is looked up, so they also work while the database is down.
SESSIONLESS_PATHS = ("/healthz", "/readyz", "/static/", "/demo/")


class Sessionless:
    """Skips the look-up for paths that need no session."""

    def open_session(self, app: Flask, request: Request) -> ServerSideSession:
        if request.path.startswith(SESSIONLESS_PATHS):
            return self.session_class(sid=self._generate_sid(self.sid_length))  # type: ignore[attr-defined]
        return super().open_session(app, request)  # type: ignore[misc]


class PostgresSessions(Sessionless, ServerSideSessionInterface):
    """Sessions in the table `sessions`, under the hash of their id: whoever reads the table can't sign in with it."""

    ttl = True  # a row knows when it ends; `flask jobs purge` removes what is over

    def _get_store_id(self, sid: str) -> str:
        return hashlib.sha256((self.key_prefix + sid).encode()).hexdigest()

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        query = select(StoredSession.data).where(StoredSession.id == store_id, StoredSession.expires_at > utc_now())
        with db.engine.connect() as connection:
            data = connection.scalar(query)
        return None if data is None else self.serializer.decode(data)

    def _delete_session(self, store_id: str) -> None:
        with db.engine.begin() as connection:
            connection.execute(delete(StoredSession).where(StoredSession.id == store_id))

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        values = {"data": self.serializer.encode(session), "expires_at": utc_now() + session_lifetime}
        upsert = (
            insert(StoredSession)
            .values(id=store_id, **values)
            .on_conflict_do_update(index_elements=[StoredSession.id], set_=values)
        )
        with db.engine.begin() as connection:
            connection.execute(upsert)


class RedisSessions(Sessionless, RedisSessionInterface):
    """Sessions in Redis, which forgets them by itself."""


def init_app(app: Flask, config: Config) -> None:
    if config.REDIS_URL:
        import redis  # an optional dependency: only installed where REDIS_URL is used

        client = redis.Redis.from_url(config.REDIS_URL, socket_timeout=5, socket_connect_timeout=5)
        app.session_interface = RedisSessions(app, client=client, use_signer=False, permanent=True)
    else:
        app.session_interface = PostgresSessions(app, permanent=True)


def renew_id(app: Flask, session: Any) -> None:
    """Give the session a new id, as must happen whenever its user changes (session fixation)."""
    app.session_interface.regenerate(session)  # type: ignore[attr-defined]
