"""Server-side sessions: the cookie carries an id and nothing else.

In PostgreSQL by default, in Redis with REDIS_URL, both under the hash of the id: a reader of the store can't sign in
with what is there. Flask-Session does the cookie; its own SQLAlchemy store is not used, because it creates its table at
start-up and commits the request's database session, half-finished work included. Ours uses short transactions of its
own, and:

- an id that is not in the store is never adopted, so nobody can plant one;
- a request that still runs when its session is ended elsewhere does not write the session back to life;
- stored bytes are read as MessagePack or not at all. Flask-Session's own serializer would try pickle last, which runs
  whatever the bytes tell it to.
"""

import hashlib
import logging
from datetime import timedelta
from typing import Any

import msgspec
from flask import Flask, Request, Response, session
from flask_session.base import Serializer, ServerSideSession, ServerSideSessionInterface
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .config import Config
from .errors import on_database_down
from .extensions import db
from .models import StoredSession, utc_now

logger = logging.getLogger(__name__)

# These answer without knowing who asks: no session is looked up, so they also work while the database is down.
SESSIONLESS_PATHS = ("/healthz", "/readyz", "/static/", "/demo/")
REDIS_TIMEOUT_SECONDS = 5


class StoredOrNewSession(ServerSideSession):
    """The session of one request. `is_stored` says whether the store already knows its id."""

    is_stored = False


class UnreachableSession(StoredOrNewSession):
    """Stands in when the store did not answer, so that the request can fail where errors are handled."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class MessagePack(Serializer):
    """Session data as MessagePack. Bytes that are something else make an empty session and a line in the log."""

    def encode(self, session: ServerSideSession) -> bytes:
        return msgspec.msgpack.encode(dict(session))

    def decode(self, serialized_data: bytes) -> dict[str, Any] | None:
        try:
            return msgspec.msgpack.decode(serialized_data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            logger.error("stored session is unreadable", extra={"reason": str(exc)})
            return None


class Sessions(ServerSideSessionInterface):
    """The common part of both stores."""

    session_class = StoredOrNewSession
    null_session_class = UnreachableSession  # Flask does not save these
    store_errors: tuple[type[Exception], ...] = ()
    ttl = True  # the store knows when an entry ends

    def __init__(self, app: Flask) -> None:
        super().__init__(app, permanent=True)
        self.serializer = MessagePack()

    def open_session(self, app: Flask, request: Request) -> StoredOrNewSession:
        if request.path.startswith(SESSIONLESS_PATHS):
            return self.session_class(sid=self._generate_sid(self.sid_length))
        try:
            opened: StoredOrNewSession = super().open_session(app, request)
        except self.store_errors as exc:
            return UnreachableSession(exc)
        opened.is_stored = opened.sid == request.cookies.get(self.get_cookie_name(app))
        return opened

    def regenerate(self, session: StoredOrNewSession) -> None:
        # Flask-Session's own does nothing for an empty session; one that was just emptied must change its id too.
        self._delete_session(self._get_store_id(session.sid))
        session.sid = self._generate_sid(self.sid_length)
        session.is_stored = False
        session.modified = True

    def save_session(self, app: Flask, session: StoredOrNewSession, response: Response) -> None:
        super().save_session(app, session, response)
        if session.accessed and "Cache-Control" not in response.headers:
            # Responses that depend on the user are for this browser only, and are asked for again each time.
            response.headers["Cache-Control"] = "private, no-cache"

    def _get_store_id(self, sid: str) -> str:
        return hashlib.sha256((self.key_prefix + sid).encode()).hexdigest()


class PostgresSessions(Sessions):
    """Sessions in the table `sessions`; `flask jobs purge` removes those that are over."""

    store_errors = (OperationalError, PoolTimeout)

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        query = select(StoredSession.data).where(StoredSession.id == store_id, StoredSession.expires_at > utc_now())
        with db.engine.connect() as connection:
            data = connection.scalar(query)
        return None if data is None else self.serializer.decode(data)

    def _delete_session(self, store_id: str) -> None:
        with db.engine.begin() as connection:
            connection.execute(delete(StoredSession).where(StoredSession.id == store_id))

    def _upsert_session(self, session_lifetime: timedelta, session: StoredOrNewSession, store_id: str) -> None:
        values = {"data": self.serializer.encode(session), "expires_at": utc_now() + session_lifetime}
        # Not an upsert: an entry that is gone was ended by another request, and stays ended.
        statement = (
            update(StoredSession).where(StoredSession.id == store_id).values(values)
            if session.is_stored
            else insert(StoredSession).values(id=store_id, **values)
        )
        with db.engine.begin() as connection:
            connection.execute(statement)


class RedisSessions(Sessions):
    """Sessions in Redis, which forgets them by itself."""

    def __init__(self, app: Flask, client: Any, store_errors: tuple[type[Exception], ...]) -> None:
        super().__init__(app)
        self.client = client
        self.store_errors = store_errors

    def _get_store_id(self, sid: str) -> str:
        return self.key_prefix + super()._get_store_id(sid)

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        data = self.client.get(store_id)
        return None if data is None else self.serializer.decode(data)

    def _delete_session(self, store_id: str) -> None:
        self.client.delete(store_id)

    def _upsert_session(self, session_lifetime: timedelta, session: StoredOrNewSession, store_id: str) -> None:
        # xx: only where the entry still is; one that another request ended stays ended.
        self.client.set(store_id, self.serializer.encode(session), px=session_lifetime, xx=session.is_stored)


def init_app(app: Flask, config: Config) -> None:
    app.session_interface = redis_sessions(app, config.REDIS_URL) if config.REDIS_URL else PostgresSessions(app)

    @app.before_request
    def session_is_readable() -> None:
        if isinstance(session._get_current_object(), UnreachableSession):  # type: ignore[attr-defined]
            raise session.error  # type: ignore[attr-defined]


def redis_sessions(app: Flask, url: str) -> RedisSessions:
    """Sessions in the Redis at `url`; its client is `app.extensions["redis"]` for whoever else needs it."""
    import redis  # only where REDIS_URL is used

    client = redis.Redis.from_url(
        url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS
    )
    app.extensions["redis"] = client
    app.register_error_handler(redis.RedisError, on_database_down)
    return RedisSessions(app, client, (redis.RedisError,))


def renew_id(app: Flask, session: Any) -> None:
    """Give the session a new id, as must happen whenever its user changes (session fixation)."""
    app.session_interface.regenerate(session)  # type: ignore[attr-defined]
