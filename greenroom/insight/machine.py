"""What the machine did with the loop's thread: so that nobody is blamed for a processor that was taken away.

Linux tells for each thread how long it was ready and had to wait for a processor, and for the whole machine how long
the hypervisor ran somebody else. Where there is no /proc, nothing was stolen.
"""

import os
from dataclasses import dataclass

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Use:
    """Seconds since the thread began: on a processor, ready for one; and what the hypervisor took from the machine."""

    cpu: float = 0.0
    delayed: float = 0.0
    steal: float = 0.0

    def since(self, earlier: "Use") -> "Use":
        return Use(self.cpu - earlier.cpu, self.delayed - earlier.delayed, self.steal - earlier.steal)

    def stolen_seconds(self, of: float) -> float:
        """How much of `of` seconds the thread would have run, had it been let."""
        delayed = min(self.delayed, of)
        # What the hypervisor took is neither time on a processor nor waiting for one, and of any of the processors.
        return delayed + max(0.0, min(self.steal, of - delayed - self.cpu))


class Machine:
    """Reads the use of the thread that makes it. Costs some microseconds; for any thread to ask."""

    def __init__(self) -> None:
        self._schedule = _open("/proc/thread-self/schedstat")
        self._stat = _open("/proc/stat")

    def use(self) -> Use:
        cpu = delayed = steal = 0.0
        if self._schedule >= 0:
            numbers = os.pread(self._schedule, 100, 0).split()
            cpu, delayed = int(numbers[0]) / 1e9, int(numbers[1]) / 1e9
        if self._stat >= 0:
            numbers = os.pread(self._stat, 200, 0).split(b"\n", 1)[0].split()
            steal = int(numbers[8]) / _TICKS_PER_SECOND if len(numbers) > 8 else 0.0
        return Use(cpu, delayed, steal)

    def close(self) -> None:
        for descriptor in (self._schedule, self._stat):
            if descriptor >= 0:
                os.close(descriptor)
        self._schedule = self._stat = -1


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
