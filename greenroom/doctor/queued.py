"""How long a process was ready while others had the cores."""

from pathlib import Path


def queued_seconds(pid: int) -> float:
    """How long a process's main thread was ready while the machine ran somebody else; 0 where nobody says."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
