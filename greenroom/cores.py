"""How many cores this process may use, which in a container is not how many the machine has.

The smallest of three counts: CPU affinity (taskset, Docker's --cpuset-cpus), the quota of the cgroup (Docker's --cpus,
Kubernetes' limits.cpu) over all its parents, and the machine's own.
Sources: sched_getaffinity(2); cgroup-v2 `cpu.max` and cgroup-v1 `cpu.cfs_quota_us`, in the kernel's admin guide.
"""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroup_root: Path = CGROUP_ROOT, self_cgroup: Path = SELF_CGROUP) -> int:
    """Whole cores, at least 1. Half a core's quota is 1: a server needs a process; 2.5 is 2, because a third worker
    would only be throttled.
    """
    quota = cgroup_quota(cgroup_root, self_cgroup)
    allowed = affinity()
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def affinity() -> int:
    """Cores the scheduler may run this process on. macOS and Windows have no affinity to ask: all cores."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def cgroup_quota(root: Path = CGROUP_ROOT, self_cgroup: Path = SELF_CGROUP) -> float | None:
    """Cores the cgroup may use per period, the tightest of it and its parents; None when nothing limits it."""
    quotas = [quota for folder in _folders(root, self_cgroup) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def throttled(root: Path = CGROUP_ROOT, self_cgroup: Path = SELF_CGROUP) -> tuple[float, int, int] | None:
    """The tightest quota in cores, how many periods of it there have been, and in how many its processes were stopped.

    None when nothing limits them, or the kernel does not count.
    """
    tightest: tuple[float, int, int] | None = None
    for folder in _folders(root, self_cgroup):
        quota = _quota(folder)
        counts = dict(line.split()[:2] for line in _read(folder / "cpu.stat").splitlines() if len(line.split()) > 1)
        if quota is not None and "nr_throttled" in counts and (tightest is None or quota < tightest[0]):
            tightest = quota, int(counts.get("nr_periods", 0)), int(counts["nr_throttled"])
    return tightest


def _folders(root: Path, self_cgroup: Path) -> list[Path]:
    """The folders to ask, from this process's own cgroup up to the root; v2 first, then v1's cpu controller."""
    found = []
    for line in _read(self_cgroup).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root
        elif "cpu" in controllers.split(","):
            base = root / "cpu"
        else:
            continue
        own = base / path.lstrip("/")
        # Inside a container the path may be the host's and absent here; the mounted root is then our own group.
        found += [folder for folder in (own, *own.parents) if folder == base or base in folder.parents]
    return found or [root, root / "cpu"]


def _quota(folder: Path) -> float | None:
    limit = _read(folder / "cpu.max").split()
    if len(limit) == 2 and limit[0] != "max":
        return int(limit[0]) / int(limit[1])
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # absent on this kernel or in this container: no limit to learn from it
