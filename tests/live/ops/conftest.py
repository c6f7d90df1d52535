"""Servers whose ops page is looked at."""

import pytest

from .watched import Start, Watched


@pytest.fixture
def watched(start: Start) -> Watched:
    return Watched(start).wait_ready()
