"""The application under Flask's own test client: never patched, never served."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from sqlalchemy import text
from werkzeug.security import generate_password_hash

from app import create_app
from app.extensions import db
from app.models import ApiToken, User
from tests.support import PASSWORD


@pytest.fixture(scope="session")
def instance_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("instance")


@pytest.fixture(scope="session")
def _app(postgres_url: str, instance_path: Path) -> Flask:
    app = create_app({"DATABASE_URL": postgres_url, "INSTANCE_PATH": str(instance_path)})
    app.config["TESTING"] = True
    with app.app_context():
        upgrade()
    return app


@pytest.fixture
def app(_app: Flask) -> Iterator[Flask]:
    """The application over an empty database. No application context is pushed: requests bring their own."""
    # One round trip; TRUNCATE would take ten times as long, and most tables are empty.
    empty = "; ".join(f'DELETE FROM "{table.name}"' for table in reversed(db.metadata.sorted_tables))
    with _app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql(empty)
    yield _app
    with _app.app_context():
        assert db.engine.pool.checkedout() == 0, "the test left a database connection checked out"


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@cache
def password_hash() -> str:
    """A hash of PASSWORD that is cheap to compare with; the application's own cost 50 ms, more on a busy machine."""
    return generate_password_hash(PASSWORD, method="scrypt:1024:8:1")


@pytest.fixture
def make_user(app: Flask) -> Callable[..., int]:
    """Makes a user and returns the id: `make_user("a@example.org")`; the password is PASSWORD."""

    def make(email: str = "ann@example.org") -> int:
        with app.app_context():
            user = User(email=email, password_hash=password_hash())
            db.session.add(user)
            db.session.commit()
            return user.id

    return make


@pytest.fixture
def bearer(app: Flask, make_user: Callable[..., int]) -> Callable[..., dict[str, str]]:
    """Makes a user and a token; returns the request headers: `client.get(url, headers=bearer())`."""

    def make(email: str = "ann@example.org") -> dict[str, str]:
        user_id = make_user(email)
        with app.app_context():
            _, token = ApiToken.issue(db.session.get(User, user_id), "test")
            db.session.commit()
        return {"Authorization": f"Bearer {token}"}

    return make


@pytest.fixture
def count(app: Flask) -> Callable[[str], int]:
    """`count("boards")`: rows in a table."""

    def rows(table: str) -> int:
        with app.app_context(), db.engine.connect() as connection:
            return connection.scalar(text(f'SELECT count(*) FROM "{table}"'))

    return rows
