"""Processes and their machine as the operating system shows them: by psutil, which reads /proc on Linux.

Where there is no /proc (a chroot, some containers), it is only known whether a process is there.
"""

import logging
import os
from typing import NamedTuple

import psutil

logger = logging.getLogger(__name__)


class Look(NamedTuple):
    is_gone: bool  # a process that has ended and that its parent has not noticed yet is one, too
    is_stopped: bool = False
    cpu_seconds: float | None = None  # of all its threads, user and system


def look_at(pid: int) -> Look:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            status, times = process.status(), process.cpu_times()
    except psutil.Error:
        return Look(is_gone=not _is_there(pid))
    is_gone = status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return Look(is_gone, status == psutil.STATUS_STOPPED, times.user + times.system)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def machine_cpu_ratio() -> float:
    """How busy the machine's cores are, 0 to 1, since the last call; 0 where nobody says so."""
    try:
        return psutil.cpu_percent() / 100
    except (OSError, psutil.Error):
        return 0.0


def machine_memory() -> tuple[float, float] | None:
    """Bytes there are, and those that can be had; None where nobody says so."""
    try:
        memory = psutil.virtual_memory()
    except (OSError, psutil.Error):
        return None
    return float(memory.total), float(memory.available)


def say_if_hidden() -> None:
    """A warning where processes can't be looked at, since much of what the page knows comes from that."""
    try:
        psutil.Process().status()
    except (OSError, psutil.Error):
        logger.warning("there is no /proc here: the CPU of workers, memory and descriptors are not known")
