"""What tests of several kinds of waits need."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine, make_url

from greenroom import replacements
from greenroom.waits import pool, pool_advice, postgres
from greenroom.waits.stdlib import hub
from tests.support import self_signed


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for localhost and 127.0.0.1 that signed itself, and its key: two files."""
    pem, key = self_signed(tmp_path_factory.mktemp("tls"))
    return str(pem), str(key)


@pytest.fixture
def make_engine(postgres_url: str) -> Iterator[Callable[..., Engine]]:
    """`make_engine(pool_size=1)`: an engine with our pool over psycopg2 as it is in a green worker."""
    hub.install()
    postgres.install(silence_seconds=60)
    engines = []

    def make(**options: Any) -> Engine:
        url = make_url(postgres_url).set(drivername="postgresql+psycopg2")
        engines.append(create_engine(url, poolclass=pool.GreenPool, **{"max_overflow": 0, **options}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()
    pool_advice.processes.clear()
    replacements.undo("psycopg2", "sqlalchemy")
