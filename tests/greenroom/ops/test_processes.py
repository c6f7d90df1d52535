"""What the ops process sees of processes, also where there is no /proc."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from greenroom.ops import limits, processes
from greenroom.ops.limits import Limits


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.fixture
def no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    monkeypatch.setattr(limits, "_lines", lambda path: [])


def test_a_process_is_looked_at(child: int) -> None:
    running = processes.look_at(child)
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED)
    stopped = processes.look_at(child)
    os.kill(child, signal.SIGCONT)

    assert not running.is_gone
    assert not running.is_stopped
    assert running.cpu_seconds is not None
    assert stopped.is_stopped


def test_a_process_that_was_not_reaped_is_gone(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    assert processes.look_at(child).is_gone


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_process_is_there_or_not(child: int) -> None:
    alive = processes.look_at(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    assert alive == processes.Look(is_gone=False)
    assert processes.look_at(child).is_gone


@pytest.mark.usefixtures("no_proc")
def test_without_proc_the_limits_that_are_known_are_told(tmp_path: Path) -> None:
    found = Limits([tmp_path]).look({os.getpid(): (1, 0.0)}, 10.0)

    assert found["memory"] == {}
    assert found["growth"] is None
    assert found["disks"]
    assert processes.machine_cpu_ratio() == 0.0


@pytest.mark.usefixtures("no_proc")
def test_without_proc_the_log_says_once_what_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        processes.say_if_hidden()

    assert "there is no /proc here" in caplog.text
