"""How often one address or one account may try: counted for all workers together, in PostgreSQL or Redis.

`limits`, the library under Flask-Limiter, without the extension: an attempt is counted before the password is compared
and given back when it was right. Counted afterwards, as there, many at once all pass before any of them counts.
"""

import hashlib
import ipaddress
import time
from datetime import timedelta
from typing import Any

from flask import current_app, request
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage, Storage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy import case, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import TooManyRequests

from ..addresses import plain_address
from ..extensions import db
from ..models import RateLimitCounter

WINDOW_MINUTES = 15


class Attempts:
    """Attempts at one thing in this request, limited for each of `keys`; all must have one left.

    `limit` in `minutes`; without them, those of signing in.
    A store that doesn't answer is an error of the request (503), never a way round the limit.
    """

    def __init__(self, action: str, *keys: str, limit: int | None = None, minutes: int = WINDOW_MINUTES) -> None:
        limit = limit or current_app.extensions["config"].SIGN_IN_LIMIT
        self.item = RateLimitItemPerMinute(limit, minutes, namespace=f"limit-{action}")
        self.keys = keys
        self.limiter = FixedWindowRateLimiter(storage())

    def use_one(self) -> None:
        """Count one attempt. Raises TooManyRequests, with Retry-After, when one of the keys has none left."""
        for key in self.keys:
            if not self.limiter.hit(self.item, key):
                raise self._refusal(key)

    def give_back(self) -> None:
        """Take a success out of the count, or a busy office behind one address would lock itself out."""
        for key in self.keys:
            self.limiter.hit(self.item, key, cost=-1)

    def _refusal(self, key: str) -> TooManyRequests:
        reset_at = self.limiter.get_window_stats(self.item, key).reset_time
        seconds = max(1, round(reset_at - time.time()))
        minutes = -(-seconds // 60)
        unit = "minute" if minutes == 1 else "minutes"
        return TooManyRequests(
            f"That were too many attempts. Please try again in {minutes} {unit}.", retry_after=seconds
        )


def client_key() -> str:
    """The client's address; of IPv6 the /64 network, since one customer has all of it."""
    peer = request.remote_addr or "unix"
    address = plain_address(peer)
    if address is None:
        return "address-" + digest(peer)
    if address.version == 6:
        return f"address-{ipaddress.ip_network((address, 64), strict=False).network_address}"
    return f"address-{address}"


def account_key(email: str) -> str:
    """The account, existing or not; hashed, so that the store is no list of addresses and any text is short."""
    return "account-" + digest(email)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def storage() -> Storage:
    """Where the counters of this application live: Redis if it has one, else PostgreSQL."""
    redis = current_app.extensions.get("redis")
    if redis is None:
        return PostgresCounters()
    return RedisStorage("redis://", connection_pool=redis.connection_pool)


class PostgresCounters(Storage):
    """Counters in the table `rate_limit_counters`; the daily purge removes those that are over.

    The clock of the database decides, so that workers need not agree on one.
    """

    STORAGE_SCHEME = None
    base_exceptions = SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add `amount` and return the sum; a window that is over starts again. One statement: no race to lose."""
        is_over = RateLimitCounter.window_ends_at <= func.now()
        new = insert(RateLimitCounter).values(
            key=key, count=func.greatest(amount, 0), window_ends_at=func.now() + timedelta(seconds=expiry)
        )
        statement = new.on_conflict_do_update(
            index_elements=[RateLimitCounter.key],
            set_={
                "count": case((is_over, new.excluded.count), else_=func.greatest(RateLimitCounter.count + amount, 0)),
                "window_ends_at": case((is_over, new.excluded.window_ends_at), else_=RateLimitCounter.window_ends_at),
            },
        ).returning(RateLimitCounter.count)
        with db.engine.begin() as connection:
            return connection.scalar(statement)

    def get(self, key: str) -> int:
        query = select(RateLimitCounter.count).where(
            RateLimitCounter.key == key, RateLimitCounter.window_ends_at > func.now()
        )
        with db.engine.connect() as connection:
            return connection.scalar(query) or 0

    def get_expiry(self, key: str) -> float:
        """When the window ends, in seconds since the epoch; now, if there is none."""
        query = select(RateLimitCounter.window_ends_at).where(RateLimitCounter.key == key)
        with db.engine.connect() as connection:
            ends_at = connection.scalar(query)
        return time.time() if ends_at is None else ends_at.timestamp()

    def check(self) -> bool:
        with db.engine.connect() as connection:
            return connection.scalar(select(1)) == 1

    def reset(self) -> int | None:
        return self._delete()

    def clear(self, key: str) -> None:
        self._delete(RateLimitCounter.key == key)

    def _delete(self, *conditions: Any) -> int:
        with db.engine.begin() as connection:
            return connection.execute(delete(RateLimitCounter).where(*conditions)).rowcount
