"""An hour of everything at once; every night."""

from pathlib import Path

import pytest

from .__main__ import soak

HOUR_SECONDS = 3600.0


@pytest.mark.nightly
@pytest.mark.timeout(HOUR_SECONDS + 600)
def test_an_hour_of_everything_leaves_nothing_wrong(tmp_path: Path) -> None:
    figures, problems = soak(HOUR_SECONDS, tmp_path)

    assert not problems, (problems, figures)
