"""The machine under the measurement: who runs on which cores, and what to write beside the numbers."""

import contextlib
import math
import os
import platform
import resource
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
SIBLINGS = Path("/sys/devices/system/cpu")
# Above this load something else is running, and the numbers are its numbers too.
BUSY_LOAD_AVERAGE = 0.5


@dataclass(frozen=True)
class Pinning:
    """Which cores the server gets and which are for generator, upstream and database. Empty sets: nothing is pinned.

    `note` says in one sentence what was done, or why nothing was.
    """

    server: frozenset[int]
    load: frozenset[int]
    note: str

    @property
    def is_pinned(self) -> bool:
        return bool(self.server)


def plan_pinning(cores: frozenset[int] | None, siblings: Mapping[int, frozenset[int]]) -> Pinning:
    """One core for the server, the others for the rest.

    `cores` is what this process may use, None where the system can't pin. `siblings` tells for a core which others
    are the same silicon (hyper-threads): they stay idle where there are enough cores without them.
    """
    nothing = frozenset[int]()
    if cores is None:
        return Pinning(nothing, nothing, f"nothing was pinned: {platform.system()} has no way to ask for it")
    if len(cores) < 2:
        return Pinning(nothing, nothing, "nothing was pinned: there is only one core, shared by server and load")
    server = min(cores)
    rest = cores - {server}
    apart = rest - siblings.get(server, nothing)
    load = apart or rest
    note = f"the server ran on core {server}; load generator and all else on {shown(load)}"
    if not apart:
        note += ", its hyper-thread sibling, so the two share one core's silicon"
    return Pinning(frozenset({server}), load, note)


def this_machines_pinning() -> Pinning:
    if not hasattr(os, "sched_getaffinity"):
        return plan_pinning(None, {})
    cores = frozenset(os.sched_getaffinity(0))
    try:
        with running_on(cores):
            pass
    except OSError as exc:
        empty = frozenset[int]()
        return Pinning(empty, empty, f"nothing was pinned: the system refused it ({exc.strerror})")
    return plan_pinning(cores, {core: siblings_of(core) for core in cores})


@contextlib.contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """This thread, and every process it starts in here, runs on `cores`; with none given, nothing changes."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def siblings_of(core: int, folder: Path = SIBLINGS) -> frozenset[int]:
    """The cores that share their silicon with `core`, itself among them; only itself where nobody says."""
    try:
        text = (folder / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return frozenset({core})
    return parse_core_list(text)


def parse_core_list(text: str) -> frozenset[int]:
    """`0,4` and `0-1`, as the kernel writes them."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def shown(cores: frozenset[int]) -> str:
    numbers = ", ".join(str(core) for core in sorted(cores))
    return f"core {numbers}" if len(cores) == 1 else f"cores {numbers}"


def raise_file_limit(needed: int) -> None:
    """Allow this process, and the servers it starts, so many open files; ends it where the system does not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(f"only {hard} open files are allowed (ulimit -Hn), {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class CoreClock:
    """How busy some cores are between two looks, whoever keeps them so. Time a virtual machine is denied counts."""

    def __init__(self, cores: frozenset[int]) -> None:
        self.cores = cores
        self._before = self._read()

    def busy_ratio(self) -> float | None:
        """Since the clock was made, 0 to 1; None when there are no cores to watch."""
        if not self.cores:
            return None
        busy_before, all_before = self._before
        busy, everything = self._read()
        return (busy - busy_before) / (everything - all_before) if everything > all_before else 0.0

    def _read(self) -> tuple[float, float]:
        busy = everything = 0.0
        times = psutil.cpu_times(percpu=True) if self.cores else []
        for core in self.cores:
            # guest time is contained in user time
            values = {k: v for k, v in times[core]._asdict().items() if not k.startswith("guest")}
            everything += sum(values.values())
            busy += sum(values.values()) - values["idle"] - values.get("iowait", 0.0)
        return busy, everything


def facts() -> dict[str, Any]:
    """The facts that a reader needs to judge the numbers, and to take them again."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_model(),
        "cores": psutil.cpu_count() or 1,
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "load_average_before": round(psutil.getloadavg()[0], 2),
    }


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def git_commit() -> str | None:
    """The commit that was measured, with `+changes` if the files differ from it; None outside a checkout."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def verdict(what: str, value: float, *, most: float = math.inf, least: float = -math.inf) -> bool:
    """Print whether a target is reached: `value` is between `least` and `most`."""
    is_reached = least <= value <= most
    target = f"at most {most:g}" if least == -math.inf else f"at least {least:g}"
    print(f"{what}: {value:.3g} (target: {target}): {'' if is_reached else 'not '}reached", flush=True)
    return is_reached
