"""A plugin of pytest: SQLAlchemy's tests start also where PostgreSQL has not the extensions that they would create.

The tests that use them ask for them first, and are skipped.
"""

from typing import Any

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    # Not before: it wants what their conftest.py loads.
    from sqlalchemy import exc
    from sqlalchemy.dialects.postgresql import provision
    from sqlalchemy.testing.provision import post_configure_engine

    create = post_configure_engine.fns["postgresql"]

    def create_what_there_is(*arguments: Any) -> None:
        try:
            create(*arguments)
        except exc.NotSupportedError as error:
            print(f"without extensions: {error.orig}")

    assert provision._extensions
    post_configure_engine.for_db("postgresql")(create_what_there_is)
