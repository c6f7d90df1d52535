"""What every ring of tests shares: one embedded PostgreSQL, and an environment without yours."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import Config
from app.postgres import EmbeddedPostgres

ROOT = Path(__file__).resolve().parent.parent
# Kept between runs, because making a database cluster takes longer than most test files.
TEST_INSTANCE = ROOT / "instance" / "tests"
OURS = ("GREENROOM_", "GUNICORN_", "FLASK_", *Config.model_fields, "WEB_CONCURRENCY", "WSGI_APP")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """No setting of the person who runs the tests reaches them."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(OURS)}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a running PostgreSQL for tests; its data is kept in the instance folder, emptied by its users."""
    postgres = EmbeddedPostgres(TEST_INSTANCE / "postgres")
    yield postgres.start()
    postgres.stop()
