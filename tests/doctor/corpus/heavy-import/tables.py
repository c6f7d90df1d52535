"""A table that takes long to make."""

import time

until = time.perf_counter() + 0.3
ROWS = []
while time.perf_counter() < until:
    ROWS.append(len(ROWS))
