"""The machine's limits, as the ops process sees them: descriptors, disks, memory and how it grows, OOM kills.

Linux says most of it in /proc and /sys/fs/cgroup; where there is no such file, that limit is not known. Memory grows
when it did so in each third of the last minute; a worker that is just warming up ends to grow before.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import clock
from ..cores import throttled
from . import processes

LOOK_SECONDS = 2.0
WINDOW_SECONDS = 60.0
QUOTA_SECONDS = 10.0
SHORTEST_WINDOW_SECONDS = 12.0
# By so much memory has to grow within the window, in bytes and as a share, to be called growing.
GROWN_BYTES = 24e6
GROWN_RATIO = 0.1
UNLIMITED = 1 << 60
MOST_KILLS = 64


class Limits:
    """Runs on: the collecting thread of the ops process."""

    def __init__(self, paths: Iterable[Path] = (), now: Callable[[], float] = clock.now) -> None:
        self.paths = [Path.cwd(), Path(tempfile.gettempdir()), *paths]
        self.now = now
        self.oom_kills = oom_kills()
        self.oom_at: deque[float] = deque(maxlen=MOST_KILLS)
        self.found: dict[str, Any] = {}
        self._looked_at = float("-inf")
        # (when, requests so far, resident bytes by pid)
        self._sizes: deque[tuple[float, float, dict[int, float]]] = deque()
        self._throttled: deque[tuple[float, tuple[float, int, int]]] = deque()

    def look(self, workers: Mapping[int, tuple[int, float]], requests: float) -> dict[str, Any]:
        """`workers` are (number, resident bytes) by pid. Costs a millisecond for a few workers, every two seconds."""
        now = self.now()
        if now - self._looked_at < LOOK_SECONDS:
            return self.found
        self._looked_at = now
        kills = oom_kills()
        if kills > self.oom_kills:
            self.oom_at.append(now)
        self.oom_kills = kills
        self._sizes.append((now, requests, {pid: size for pid, (_, size) in workers.items()}))
        while now - self._sizes[0][0] > WINDOW_SECONDS:
            self._sizes.popleft()
        memory = memory_of_all()
        self.found = {
            "descriptors": [row for pid, (number, _) in workers.items() if (row := descriptors(pid, number))],
            "disks": disks(self.paths),
            "memory": memory,
            "growth": growth(list(self._sizes), memory),
            "oom_seconds": [now - at for at in self.oom_at],
            "quota": self._quota(now, throttled()),
        }
        return self.found

    def _quota(self, now: float, counted: tuple[float, int, int] | None) -> dict[str, float] | None:
        """The CPU quota in cores, and in which share of its periods the processes were stopped lately."""
        if counted is None:
            self._throttled.clear()
            return None
        self._throttled.append((now, counted))
        while now - self._throttled[0][0] > QUOTA_SECONDS:
            self._throttled.popleft()
        (_, (_, periods, stopped)), (_, (cores, periods_now, stopped_now)) = self._throttled[0], self._throttled[-1]
        grown = periods_now - periods
        return {"cores": cores, "stopped_ratio": (stopped_now - stopped) / grown if grown > 0 else 0.0}


def descriptors(pid: int, number: int) -> dict[str, Any] | None:
    try:
        used = len(os.listdir(f"/proc/{pid}/fd"))
        return {"worker": number, "used": used, "limit": limits_of(pid).get("Max open files", UNLIMITED)}
    except OSError:
        return None


def limits_of(pid: int) -> dict[str, int]:
    """The soft limits of a process; those that are unlimited are left out."""
    found = {}
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]:
        soft = line[26:].split()[0]
        if soft.isdecimal():
            found[line[:26].strip()] = int(soft)
    return found


def disks(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The file systems that these folders, and the log if it is a file, are on; each once."""
    found: dict[int, dict[str, Any]] = {}
    log = [Path("/proc/self/fd/2")] if os.path.isfile("/proc/self/fd/2") else []
    for path in [*paths, *log]:
        try:
            status, space = path.stat(), os.statvfs(path)
        except OSError:
            continue
        if space.f_blocks:
            found.setdefault(
                status.st_dev,
                {
                    "path": "the log" if path in log else str(path),
                    "free_bytes": space.f_bavail * space.f_frsize,
                    "total_bytes": space.f_blocks * space.f_frsize,
                    "free_files_ratio": space.f_favail / space.f_files if space.f_files else 1.0,
                },
            )
    return list(found.values())


def memory_of_all() -> dict[str, float]:
    """How much may be had at most, of what is used now: the machine's, or that of the narrowest control group.

    Empty where the machine does not say what it has.
    """
    machine = processes.machine_memory()
    if machine is None:
        return {}
    limit, used = machine[0], machine[0] - machine[1]
    groups = [(folder, "memory.max", "memory.current") for folder in control_groups()]
    groups += [
        (folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in control_groups(controller="memory")
    ]
    for folder, limit_name, used_name in groups:
        most, current = _number(folder / limit_name), _number(folder / used_name)
        if most is not None and current is not None and most - current < limit - used:
            limit, used = float(most), float(current)
    return {"limit_bytes": limit, "used_bytes": used, "available_bytes": max(0.0, limit - used)}


def control_groups(controller: str = "") -> list[Path]:
    """Those of this process, which are the workers', the innermost first: of cgroup v2, or of a controller of v1."""
    root = Path("/sys/fs/cgroup") / controller
    name = None
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            name = path.lstrip("/")
    if name is None:
        return []
    parts = [part for part in name.split("/") if part not in ("", "..")]
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def oom_kills() -> int:
    """How often the kernel has killed for want of memory, in our control groups or on the machine."""
    for folder in control_groups():
        for line in _lines(folder / "memory.events"):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return next((int(line.split()[1]) for line in _lines(Path("/proc/vmstat")) if line.startswith("oom_kill ")), 0)


def growth(sizes: list[tuple[float, float, dict[int, float]]], memory: Mapping[str, float]) -> dict[str, Any] | None:
    """How memory grows, and when it will be used up; None if it does not.

    Of the workers that were there all the time.
    """
    if len(sizes) < 4 or sizes[-1][0] - sizes[0][0] < SHORTEST_WINDOW_SECONDS:
        return None
    stayed = set(sizes[0][2]).intersection(*(row[2] for row in sizes))
    at = [sizes[len(sizes) * part // 3 - (part == 3)] for part in range(4)]
    totals = [sum(row[2][pid] for pid in stayed) for row in at]
    grown = totals[-1] - totals[0]
    steps = [after - before for before, after in zip(totals, totals[1:], strict=False)]
    if not stayed or grown < max(GROWN_BYTES, GROWN_RATIO * totals[0]) or min(steps) < grown / 12:
        return None
    seconds, requests = sizes[-1][0] - sizes[0][0], sizes[-1][1] - sizes[0][1]
    rate = grown / seconds
    return {
        "bytes": grown,
        "seconds": seconds,
        "bytes_per_second": rate,
        "bytes_per_request": grown / requests if requests >= 1 else None,
        "until_full_seconds": memory["available_bytes"] / rate,
    }


def _number(path: Path) -> int | None:
    text = next(iter(_lines(path)), "")
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
