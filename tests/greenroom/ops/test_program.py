"""How often the ops process looks."""

import pytest

from greenroom.ops.program import pause_after


@pytest.mark.parametrize(("took", "pause"), [(0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.9, 0.9), (1.8, 1.8)])
def test_a_look_comes_once_a_second_and_takes_half_of_a_core_at_most(took: float, pause: float) -> None:
    assert pause_after(took) == pytest.approx(pause)
