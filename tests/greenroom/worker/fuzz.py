"""How many generated examples a test tries: few and always the same, or as many as GREENROOM_FUZZ_EXAMPLES says."""

import os

from hypothesis import settings

NAME = "GREENROOM_FUZZ_EXAMPLES"


def examples(number: int) -> settings:
    """`number` of them in the ordinary run. GREENROOM_FUZZ_EXAMPLES=100000 makes it a long one, new each time."""
    many = int(os.environ.get(NAME) or 0)
    return settings(max_examples=many or number, deadline=None, derandomize=not many, database=None)
