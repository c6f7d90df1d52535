"""The doctor's own folder and processes, and taking back what the application has left: no process, port or file.

Children are in sessions of their own. On Linux the doctor also becomes the parent of processes whose parents have ended
(PR_SET_CHILD_SUBREAPER), so that a program that has made itself a daemon is found and ended, too.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from .. import agents, early_hook
from .inside.quarantine import CREATED, LINKED, MOVED

PR_SET_CHILD_SUBREAPER = 36
KEPT_OUTPUT_BYTES = 65_536
# Where people put what gunicorn is told; the doctor tells it otherwise.
NOT_INHERITED = ("GUNICORN_CMD_ARGS", "WERKZEUG_RUN_MAIN", "WERKZEUG_SERVER_FD", "COVERAGE_PROCESS_START")
QUIET = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONFAULTHANDLER": "1",
}


class Scratch:
    """Use as a context manager: everything is gone at its end."""

    def __init__(self, *, allow_writes: bool = False) -> None:
        # Short: a worker's socket is in it.
        self.folder = Path(tempfile.mkdtemp(prefix="grd-", dir="/tmp" if os.path.isdir("/tmp") else None))
        self.allow_writes = allow_writes
        self.root = Path.cwd()
        self.children: list[Child] = []
        self.left: list[str] = []
        self.before = {one.pid for one in psutil.Process().children(recursive=True)}
        for name in ("tmp", "sockets"):
            (self.folder / name).mkdir()

    def __enter__(self) -> "Scratch":
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.stop()
        self.end_processes()
        self.tidy()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the application's environment: the one here, but with writes kept away from real services."""
        environ = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        environ.update(QUIET)
        environ["TMPDIR"] = str(self.folder / "tmp")
        environ["_GREENROOM_DOCTOR_SCRATCH"] = str(self.folder)
        environ["_GREENROOM_DOCTOR_SOCKETS"] = str(self.folder / "sockets")
        if self.allow_writes:
            environ["_GREENROOM_DOCTOR_WRITES"] = "1"
        else:
            options = environ.get("PGOPTIONS", "")
            environ["PGOPTIONS"] = f"{options} -c default_transaction_read_only=on".strip()
        # Greenroom itself, where it is run from a checkout: in a folder in which nothing else could be imported.
        package = Path(__file__).resolve().parents[1]
        paths = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        if "site-packages" not in str(package) and str(package.parent) not in paths:
            alone = self.folder / "package"
            alone.mkdir(exist_ok=True)
            if not (alone / "greenroom").exists():
                (alone / "greenroom").symlink_to(package)
            paths.append(str(alone))
        if paths:
            environ["PYTHONPATH"] = os.pathsep.join(paths)
        environ.update(more or {})
        return environ

    def start(
        self,
        command: Sequence[str],
        more: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        *,
        is_patched_first: bool = False,
    ) -> "Child":
        """`is_patched_first`: before the agent that has launched the doctor, as `greenroom run -- AGENT ...` does."""
        environ = self.environment(more)
        if is_patched_first and agents.launcher():
            early_hook.put_first(environ)
        child = Child(command, environ, self.root, pass_fds)
        self.children.append(child)
        return child

    def end_processes(self) -> None:
        """End all processes that the application started and left, daemons included: ask them first, then kill.

        A database is among them where the application starts its own: it gets the time to close its files.
        """
        for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGINT, 4.0), *[(signal.SIGKILL, 2.0)] * 3):
            left = [one for one in psutil.Process().children(recursive=True) if one.pid not in self.before]
            if not left:
                return
            for one in left:
                with contextlib.suppress(psutil.Error):
                    if one.status() != psutil.STATUS_ZOMBIE:
                        if number == signal.SIGTERM:
                            self.left.append(one.name())
                        one.send_signal(number)
            _reap(left, seconds)

    def tidy(self) -> None:
        """Remove the files that the application has made, and put back those that it has written over."""
        notes = self.folder / "files"
        lines = notes.read_text(errors="surrogateescape").split("\n") if notes.is_file() else []
        for line in reversed(lines):
            with contextlib.suppress(OSError):
                if line:
                    _take_back(*line.split("\0"))


def _take_back(kind: str, first: str, name: str = "") -> None:
    """Undo what one of quarantine's notes says. Raises OSError."""
    if kind == CREATED:
        if os.path.isdir(first) and not os.path.islink(first):
            os.rmdir(first)
        else:
            os.unlink(first)
    elif kind == MOVED:
        os.replace(name, first)
    elif kind == LINKED:
        os.symlink(first, name)
    elif not first:
        os.mkdir(name)
    elif not os.path.isfile(name) or Path(first).read_bytes() != Path(name).read_bytes():
        shutil.copy2(first, name)


def _reap(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until they are gone, for so long; those that have become our own children are reaped."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        is_there = False
        for process in processes:
            with contextlib.suppress(ChildProcessError):  # somebody else's child: it is reaped there, or becomes ours
                os.waitpid(process.pid, os.WNOHANG)
            is_there = is_there or psutil.pid_exists(process.pid)
        if not is_there:
            return
        time.sleep(0.02)


class Child:
    """A process in a session of its own; the end of its output is kept, whatever it writes."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], folder: Path, pass_fds: Sequence[int]
    ) -> None:
        self.process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=list(pass_fds),
        )
        self._kept = bytearray()
        self.written = 0  # bytes of output, with those that are not kept
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError), self.process.stdout:
            while piece := os.read(self.process.stdout.fileno(), 65_536):
                self._kept += piece
                self.written += len(piece)
                del self._kept[:-KEPT_OUTPUT_BYTES]

    def output(self, since: int = 0) -> str:
        """The output after so many bytes, as far as it is kept."""
        kept = bytes(self._kept)
        return kept[max(0, len(kept) - (self.written - since)) :].decode("utf-8", "replace")

    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(0.5)
        return True

    def stop(self, grace_seconds: float = 3.0) -> None:
        """SIGTERM, and SIGKILL for its whole session when that does not help."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            self.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait(5.0)
