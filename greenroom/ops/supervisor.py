"""The supervisor of the ops process: started by the arbiter, started again when it dies, ended with the server.

    arbiter                                        ops process
      spawn; keeps the write end of its stdin,  -> works
      and so do the workers
      looks once a second; gone? spawn again,      ...
      later each time it does not live long
      ... all that hold the pipe are gone       -> stdin reaches its end: exits, and removes the folder

Nothing here can stop the server: what fails is logged. The process gets the scoreboard's descriptor, the token and
nothing else of the environment that could be secret.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import clock
from ..companion import is_running, wait_until
from ..settings import Settings
from .socket_folder import BOARD_DESCRIPTOR, SocketFolder

logger = logging.getLogger("gunicorn.error")

STOP_SECONDS = 5.0
# It is started again at once when it lived for this long; otherwise later each time.
HEALTHY_SECONDS = 30.0
LONGEST_BACKOFF_SECONDS = 60.0
PACKAGE_PARENT = Path(__file__).resolve().parents[2]
KEPT_NAMES = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS")


@dataclass(frozen=True)
class Wanted:
    """The parameters of the ops process; a reload that changes them starts the process anew."""

    address: tuple[str, int]
    token: str
    host_names: tuple[str, ...]
    recordings_path: str
    recordings_kept: int
    history_path: str
    webhooks: tuple[str, ...]
    peers: tuple[str, ...]
    about: Mapping[str, object]  # which server this is
    error_log: str  # the file that gunicorn logs to, "" when that is standard error

    @classmethod
    def by(cls, settings: Settings, about: Mapping[str, object], error_log: str) -> "Wanted | None":
        if settings.ops_address is None:
            return None
        return cls(
            settings.ops_address,
            settings.ops_token,
            settings.ops_host_names,
            settings.recordings_path,
            settings.recordings_kept,
            settings.history_path,
            settings.webhooks,
            settings.peers,
            about,
            error_log,
        )


class Supervisor:
    """Runs on: arbiter. `ids` are the user and group of its workers."""

    def __init__(
        self,
        wanted: Wanted | None,
        board_descriptor: int,
        ids: tuple[int, int],
        *,
        spawn: Callable[["Supervisor", Wanted], int] | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.wanted = wanted
        self.board_descriptor = board_descriptor
        self.ids = ids
        self.socket_folder = SocketFolder.make(*ids)
        self.pid = 0
        self.failures = 0
        self.now = now
        self._spawn = spawn or _spawn
        self._stdin, self._our_end = os.pipe()
        self._started_at = 0.0
        self._not_before = 0.0
        self._is_stopping = False

    def look(self) -> None:
        """Once a second: start what should run and does not."""
        if self.pid and not is_running(self.pid):
            lived = self.now() - self._started_at
            self.failures = 0 if lived >= HEALTHY_SECONDS else self.failures + 1
            wait_seconds = min(LONGEST_BACKOFF_SECONDS, 2.0**self.failures - 1)
            self._not_before = self.now() + wait_seconds
            logger.warning("the ops process (pid %s) has ended; it is started again in %g s", self.pid, wait_seconds)
            self.pid = 0
        if self.wanted is not None and not self.pid and not self._is_stopping and self.now() >= self._not_before:
            self._start(self.wanted)

    def _start(self, wanted: Wanted) -> None:
        self._started_at = self.now()
        try:
            self.pid = self._spawn(self, wanted)
        except OSError as exc:
            self.failures += 1
            wait_seconds = min(LONGEST_BACKOFF_SECONDS, 2.0**self.failures)
            self._not_before = self.now() + wait_seconds
            logger.warning("the ops process can't be started (%s); the next attempt is in %g s", exc, wait_seconds)

    def reload(self, wanted: Wanted | None) -> None:
        """After a HUP. A process that is what it should be stays, with all that it has counted."""
        if wanted != self.wanted:
            self._end_process()
            self.wanted = wanted
            self.failures, self._not_before = 0, 0.0

    def stop(self) -> None:
        """At the end of the server."""
        self._is_stopping = True
        for descriptor in (self._our_end, self._stdin):
            os.close(descriptor)
        if self.pid and not wait_until(lambda: not is_running(self.pid), STOP_SECONDS):
            self._end_process(signal.SIGKILL)
        self.socket_folder.remove()

    def _end_process(self, number: signal.Signals = signal.SIGTERM) -> None:
        if not self.pid:
            return
        for each in (number, signal.SIGKILL):
            if is_running(self.pid):
                os.kill(self.pid, each)
            if wait_until(lambda: not is_running(self.pid), STOP_SECONDS):
                break
        self.pid = 0

    def arguments(self, wanted: Wanted) -> list[str]:
        told = {
            "address": wanted.address,
            "host_names": wanted.host_names,
            "recordings_path": wanted.recordings_path,
            "recordings_kept": wanted.recordings_kept,
            "history_path": wanted.history_path,
            "peers": wanted.peers,
            "folder": str(self.socket_folder.folder),
            "ids": self.ids,
            "error_log": wanted.error_log,
            "about": wanted.about,
        }
        # -P: the folder it is started in is the application's, whose modules may be called as ours or the library's.
        return [sys.executable, "-P", "-m", "greenroom.ops", "--serve", json.dumps(told)]

    def environment(self, wanted: Wanted) -> dict[str, str]:
        kept = {name: value for name in KEPT_NAMES if (value := os.environ.get(name)) is not None}
        return {
            **kept,
            "PYTHONPATH": str(PACKAGE_PARENT),
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "1",  # glibc gives each thread a heap of its own else: a megabyte for these few
            # Not among the arguments, which everybody on the machine can read.
            "GREENROOM_OPS_TOKEN": wanted.token,
            "GREENROOM_OPS_WEBHOOKS": ",".join(wanted.webhooks),
        }

    @property
    def stdin(self) -> int:
        return self._stdin


def _spawn(supervisor: Supervisor, wanted: Wanted) -> int:
    # posix_spawn for the reasons that the companion gives.
    arguments = supervisor.arguments(wanted)
    return os.posix_spawn(
        arguments[0],
        arguments,
        supervisor.environment(wanted),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, supervisor.stdin, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
            (os.POSIX_SPAWN_DUP2, supervisor.board_descriptor, BOARD_DESCRIPTOR),
        ],
        setpgroup=0,
        setsigmask=[],
        setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR2],
    )
