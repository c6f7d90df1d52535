"""The machine's share in a slow loop: a processor that was taken away is not the code's fault.

Linux tells for each thread how long it was ready and had to wait for a processor, and for the whole machine how long
the hypervisor ran somebody else. Where there is no /proc, nothing was stolen.
"""

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass

from .. import clock

STEAL_EVERY = 8
PROCESSORS = os.cpu_count() or 1
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Use:
    """Seconds up to `at`: of the thread on a processor, and ready for one; and what the hypervisor took of all."""

    at: float = 0.0
    cpu: float = 0.0
    delayed: float = 0.0
    steal: float = 0.0

    def since(self, earlier: "Use", seconds: float) -> "Use":
        """The share of the last `seconds` in what was used since `earlier`, which is longer ago."""
        passed = self.at - earlier.at
        share = min(1.0, seconds / passed) if passed > 0.0 else 1.0
        return Use(
            self.at,
            share * (self.cpu - earlier.cpu),
            share * (self.delayed - earlier.delayed),
            share * (self.steal - earlier.steal),
        )

    def stolen_seconds(self, of: float) -> float:
        """How much of `of` seconds the thread would have run, had it been let.

        Time that the hypervisor took counts as the thread's own time on a processor, and is known only for all
        processors together: the average of one is taken, and nothing from a thread that slept.
        """
        delayed = min(self.delayed, of)
        return delayed + min(self.steal / PROCESSORS, self.cpu, of - delayed)


class Machine:
    """Reads the use of the thread that makes it. Costs some microseconds; for any thread to ask."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self._asked = 0
        self._steal = 0.0
        self._schedule = _open("/proc/thread-self/schedstat")
        self._stat = _open("/proc/stat")

    def use(self, *, is_exact: bool = True) -> Use:
        """Return the use up to now. Not exact: the hypervisor's part, slow to read, is asked for now and then."""
        cpu = delayed = steal = 0.0
        if self._schedule >= 0:
            numbers = _read(self._schedule, 100).split()
            cpu, delayed = (int(number) / 1e9 for number in numbers[:2]) if len(numbers) > 1 else (0.0, 0.0)
        self._asked += 1
        if not is_exact and self._asked % STEAL_EVERY:
            steal = self._steal
        elif self._stat >= 0:
            numbers = _read(self._stat, 200).split(b"\n", 1)[0].split()
            steal = self._steal = int(numbers[8]) / _TICKS_PER_SECOND if len(numbers) > 8 else 0.0
        return Use(self.now(), cpu, delayed, steal)

    def close(self) -> None:
        for descriptor in (self._schedule, self._stat):
            if descriptor >= 0:
                os.close(descriptor)
        self._schedule = self._stat = -1


def sleeps() -> int:
    """How often this thread has slept; 0 where nobody counts."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _read(descriptor: int, size: int) -> bytes:
    """Nothing where the system can't say."""
    try:
        return os.pread(descriptor, size, 0)
    except OSError:
        return b""
