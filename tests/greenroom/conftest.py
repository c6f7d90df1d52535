"""Pure logic on fakes: no process, no patching, no sleeping."""

import pytest

from greenroom.waits.stdlib import install_hub


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


@pytest.fixture(autouse=True, scope="session")
def _timed() -> None:
    """The waits of requests end here as they do in a worker; those of everything else stay as they are."""
    install_hub()
