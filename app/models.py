"""The tables: users, sessions, tokens, boards, sources, fetches."""

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

from flask_login import UserMixin
from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, LargeBinary, String, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, mapped_column, relationship
from werkzeug.security import check_password_hash, generate_password_hash

from .extensions import db

TOKEN_PREFIX = "gr_"  # noqa: S105 - lets secret scanners and people recognise a token
# Every moment is stored with its time zone, UTC.
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]


def utc_now() -> datetime:
    return datetime.now(UTC)


class User(UserMixin, db.Model):
    """Somebody who can sign in. `email` is stored in lower case."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[Moment] = mapped_column(default=utc_now)

    tokens: Mapped[list["ApiToken"]] = relationship(back_populates="user", cascade="all, delete-orphan")
    boards: Mapped[list["Board"]] = relationship(back_populates="owner", cascade="all, delete-orphan")

    def set_password(self, password: str) -> None:
        self.password_hash = generate_password_hash(password)

    def has_password(self, password: str) -> bool:
        return check_password_hash(self.password_hash, password)

    @property
    def password_fingerprint(self) -> str:
        """Changes with the password. Sessions and reset links carry it, so both end when the password changes."""
        return hashlib.sha256(self.password_hash.encode()).hexdigest()[:32]

    def get_id(self) -> str:
        """Return the key that Flask-Login keeps in the session and gives to the user loader in app/auth/identity.py."""
        return f"{self.id}.{self.password_fingerprint}"

    @classmethod
    def by_email(cls, email: str) -> "User | None":
        return db.session.scalar(select(cls).where(cls.email == email.strip().lower()))


class ApiToken(db.Model):
    """A bearer token. Only its hash is kept: a reader of this table can't use it."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(80))
    # A plain SHA-256 is right here, not a password hash: the token is 256 random bits, there is nothing to guess.
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[Moment] = mapped_column(default=utc_now)
    last_used_at: Mapped[Moment | None]

    user: Mapped[User] = relationship(back_populates="tokens")

    @classmethod
    def issue(cls, user: User, name: str) -> tuple["ApiToken", str]:
        """A new token for `user`, added to the session, and its text, which can't be had again."""
        text = TOKEN_PREFIX + secrets.token_urlsafe(32)
        token = cls(user=user, name=name, token_hash=cls.hash(text))
        db.session.add(token)
        return token, text

    @staticmethod
    def hash(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()


class Board(db.Model):
    """A named set of sources that are fetched together."""

    __tablename__ = "boards"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    title: Mapped[str] = mapped_column(String(120))
    is_public: Mapped[bool] = mapped_column(default=False, index=True)
    # None: nobody's, as the demo board is. Nobody can edit it.
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[Moment] = mapped_column(default=utc_now)

    owner: Mapped[User | None] = relationship(back_populates="boards")
    sources: Mapped[list["Source"]] = relationship(
        back_populates="board", cascade="all, delete-orphan", order_by="Source.position"
    )

    def is_readable_by(self, user: Any) -> bool:
        return self.is_public or self.is_owned_by(user)

    def is_owned_by(self, user: Any) -> bool:
        return user.is_authenticated and self.owner_id == user.id


class Source(db.Model):
    """One HTTP endpoint of a board."""

    __tablename__ = "sources"
    __table_args__ = (
        # Deferred to the commit, so that one PUT may swap two names.
        UniqueConstraint("board_id", "name", deferrable=True, initially="DEFERRED"),
        CheckConstraint("timeout_ms > 0", name="timeout_positive"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id", ondelete="CASCADE"), index=True)
    position: Mapped[int]
    name: Mapped[str] = mapped_column(String(80))
    url: Mapped[str] = mapped_column(String(2000))
    timeout_ms: Mapped[int] = mapped_column(default=2000)

    board: Mapped[Board] = relationship(back_populates="sources")


class Fetch(db.Model):
    """One answer of one source. Belongs to the board and names the source, so history survives an edit."""

    __tablename__ = "fetches"
    __table_args__ = (Index("ix_fetches_board_id_started_at", "board_id", "started_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    board_id: Mapped[int] = mapped_column(ForeignKey("boards.id", ondelete="CASCADE"))
    source_name: Mapped[str] = mapped_column(String(80))
    started_at: Mapped[Moment] = mapped_column(default=utc_now, index=True)
    elapsed_ms: Mapped[int]
    # Exactly one of the two: the HTTP status that came, or the reason why none did.
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(300))


class StoredSession(db.Model):
    """A browser session; the cookie carries only the id, and only its hash is kept here."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[Moment] = mapped_column(index=True)


class RateLimitCounter(db.Model):
    """How often something happened in the current window; shared by all workers."""

    __tablename__ = "rate_limit_counters"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    count: Mapped[int] = mapped_column(server_default="0")
    window_ends_at: Mapped[Moment] = mapped_column(server_default=func.now(), index=True)
