"""Nightly: each application of the catalogue, in environments of its own."""

from pathlib import Path

import pytest

from .__main__ import tried
from .catalogue import APPLICATIONS
from .environments import SETS, environment, wheel
from .model import Application


def test_names_are_unique_and_every_application_is_asked_something() -> None:
    assert len({application.name for application in APPLICATIONS}) == len(APPLICATIONS) >= 20
    assert all(application.asks and application.requirements for application in APPLICATIONS)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adoption")


@pytest.fixture(scope="session")
def ours(folder: Path) -> Path:
    return wheel(folder)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("versions", SETS)
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.name)
def test_it_is_served_unchanged(application: Application, versions: str, folder: Path, ours: Path) -> None:
    if versions == "oldest" and application.not_oldest:
        assert len(application.not_oldest) > 20, "a reason"
        return
    python = environment(application, versions, folder, ours)

    result = tried(application, python)

    assert result.is_well, [*result.answers, *result.lifecycle]
