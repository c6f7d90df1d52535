"""A plug-in for pytest that runs Django's own tests as their runtests.py does: its settings, applications, databases.

Begun in the folder of Django's sources, with tests/MODULE as arguments.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    sys.path.insert(0, str(Path.cwd() / "tests"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "test_sqlite"
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    import runtests  # type: ignore[import-not-found]

    runtests.setup_run_tests(0, None, None, [Path(argument).parts[1] for argument in config.args])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that empty the databases come last, as Django's runner has it."""
    from django.test import TestCase, TransactionTestCase

    def empties_databases(item: pytest.Item) -> bool:
        cls = getattr(item, "cls", None) or object
        return issubclass(cls, TransactionTestCase) and not issubclass(cls, TestCase)

    items.sort(key=empties_databases)


@pytest.fixture(scope="session", autouse=True)
def databases() -> object:
    from django.test.runner import DiscoverRunner

    runner = DiscoverRunner(verbosity=0, interactive=False)
    runner.setup_test_environment()
    made = runner.setup_databases()
    yield
    runner.teardown_databases(made)
    runner.teardown_test_environment()
