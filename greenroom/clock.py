"""The one clock: seconds that only move forward.

Everything that measures or waits takes `now: Callable[[], float]` and gets `clock.now` by default, so a
test passes a clock of its own and a stepped wall clock can neither stretch nor cut a wait.
"""

import time
from functools import partial

# Not the function itself: freezegun exchanges that in every module, and waits would never end.
now = partial(time.monotonic)
