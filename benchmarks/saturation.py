"""How many clients fill a server: with fewer its rate says how fast they are, and not what it can do.

Their number doubles as long as the core has time to spare, more clients bring more answers, and all get theirs.
"""

from collections.abc import Callable
from dataclasses import dataclass

FULL_RATIO = 0.93  # of a core; the kernel's interrupts and the scheduler take the rest
LEAST_GAIN = 1.05  # of the rate, with twice the clients
MOST_CLIENTS = 1600
PROBE_SECONDS = 0.8
PROBE_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Probe:
    rate: float
    server_cpu_ratio: float
    error_count: int = 0


def clients_that_fill(first: int, probe: Callable[[int], Probe], most: int = MOST_CLIENTS) -> int:
    """The number to measure with. `probe` asks for a short time with so many clients."""
    clients, seen = first, probe(first)
    while seen.server_cpu_ratio < FULL_RATIO and 2 * clients <= most:
        more = probe(2 * clients)
        if more.error_count or more.rate < LEAST_GAIN * seen.rate:
            break
        clients, seen = 2 * clients, more
    return clients
