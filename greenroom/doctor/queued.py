"""The main thread of a process, by the kernel's count: how long it ran, and was ready while others had the cores."""

from pathlib import Path


def queued_seconds(pid: int) -> float:
    """How long it was ready while the machine ran somebody else; 0 where nobody says."""
    return _seconds(pid, 1)


def ran_seconds(pid: int) -> float:
    """How long it ran; 0 where nobody says."""
    return _seconds(pid, 0)


def _seconds(pid: int, place: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[place]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
