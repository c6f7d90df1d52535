"""Pure logic on fakes: no process, no patching, no sleeping."""

import pytest


class ManualClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
