"""Nightly: each application of the catalogue, in an environment of its own."""

import pytest

from .__main__ import environment, tried
from .catalogue import APPLICATIONS, Application


def test_names_are_unique_and_every_application_is_asked_something() -> None:
    assert len({application.name for application in APPLICATIONS}) == len(APPLICATIONS) >= 20
    assert all(application.asks and application.requirements for application in APPLICATIONS)


@pytest.mark.nightly
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.name)
def test_it_is_served_unchanged(application: Application, tmp_path_factory: pytest.TempPathFactory) -> None:
    python = environment(application, tmp_path_factory.mktemp("adoption"))

    result = tried(application, python)

    assert result.is_well, [*result.answers, *result.lifecycle]
