"""Fixtures of several tests of the worker."""

from collections.abc import Iterator

import pytest

from greenroom.worker import recycle

from .fleet import World
from .harness import Ours, Site, serve
from .reading import App


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def ours(app: App) -> Iterator[Site]:
    with serve(Ours, app) as site:
        yield site


@pytest.fixture
def no_stagger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycle, "STAGGER_SECONDS", 0.0)


@pytest.fixture
def world() -> World:
    return World(workers=3)
