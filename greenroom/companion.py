"""The companion: one process that the arbiter starts before its workers and that outlives them by a moment.

It prepares what the application needs (for the reference application: the embedded database, migrations, start-up
checks) and hands back environment variables for the workers. The contract, in the order things happen:

    arbiter                                      companion
      spawn, keeping the write end of its stdin -> prepares; on failure explains on stderr, exits non-zero
      waits, bounded                            <- one line of JSON on stdout: {"environment": {"NAME": "value"}}
      forks workers, which inherit the write end
      ... all of them are gone                  -> stdin reaches its end: tidies up and exits

A pipe and not a signal, because the kernel closes it whatever kills the arbiter, kill -9 included, and because the
workers hold it too: a database is never stopped under a request that is being answered.
The application's code is never imported into the arbiter, so that a reload (HUP) reads it anew.
"""

import json
import logging
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gevent import monkey

from . import clock
from .errors import CompanionError
from .forking import release

logger = logging.getLogger(__name__)

STOP_SECONDS = 15.0
LONGEST_LINE_BYTES = 65_536


@dataclass
class Companion:
    """A running companion and the environment it gave."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    pid: int = 0
    _stdin: int = -1

    @classmethod
    def start(cls, command: Sequence[str], environ: Mapping[str, str], timeout_seconds: float) -> "Companion":
        """Start `command` and wait until it is ready.

        Raises CompanionError when it exits or is not ready in time; it has then explained itself on stderr.
        Runs on: arbiter.
        """
        companion_stdin, our_end = os.pipe()
        our_stdout, companion_stdout = os.pipe()
        # posix_spawn and not subprocess: gevent's Popen waits for SIGCHLD through its loop, which the arbiter's own
        # handler replaces. A process group of its own, so that Ctrl-C in the terminal reaches the arbiter only.
        pid = os.posix_spawn(
            command[0],
            list(command),
            dict(environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, companion_stdin, 0),
                (os.POSIX_SPAWN_DUP2, companion_stdout, 1),
            ],
            setpgroup=0,
            # The arbiter may have signals blocked or handled; its child starts with the usual ones.
            setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
        )
        os.close(companion_stdin)
        os.close(companion_stdout)
        companion = cls(command, pid=pid, _stdin=our_end)
        try:
            companion.environment = _read_environment(our_stdout, timeout_seconds)
        except CompanionError:
            companion.stop()
            raise
        finally:
            os.close(our_stdout)
        return companion

    def release(self) -> None:
        """Let go of our end: the companion ends when the workers that hold it are gone too."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def leave_to_parent(self) -> None:
        """In a process that the application forks from a worker: it is no reason for the companion to stay."""
        if self._stdin >= 0:
            release([self._stdin])

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Release the companion and wait until it is gone; killed if it stays longer than `timeout_seconds`."""
        self.release()
        if not wait_until(lambda: not is_running(self.pid), timeout_seconds):
            logger.warning("companion did not end, killing it", extra={"pid": self.pid})
            os.kill(self.pid, signal.SIGKILL)
            wait_until(lambda: not is_running(self.pid), timeout_seconds)


def _read_environment(descriptor: int, timeout_seconds: float) -> dict[str, str]:
    line = _read_line(descriptor, timeout_seconds)
    try:
        environment = json.loads(line)["environment"]
        return {str(name): str(value) for name, value in environment.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CompanionError(f"the companion said something that is not its environment: {line[:200]!r}") from exc


def _read_line(descriptor: int, timeout_seconds: float) -> bytes:
    deadline = clock.now() + timeout_seconds
    received = b""
    while not received.endswith(b"\n") and len(received) < LONGEST_LINE_BYTES:
        remaining = max(0.0, deadline - clock.now())
        if not select.select([descriptor], [], [], remaining)[0]:
            raise CompanionError(
                f"the companion was not ready within {timeout_seconds:g} s; "
                "see its messages above, or raise GREENROOM_COMPANION_TIMEOUT_SECONDS"
            )
        chunk = os.read(descriptor, 4096)
        if not chunk:
            raise CompanionError("the companion ended before it was ready; see its messages above")
        received += chunk
    return received


def is_running(pid: int) -> bool:
    """Whether the child `pid` still runs; reaps it if it does not."""
    try:
        # The real waitpid: gevent's would wait for a child watcher that the arbiter's SIGCHLD handler starves.
        waitpid = monkey.get_original("os", "waitpid")
        return bool(waitpid(pid, os.WNOHANG) == (0, 0))
    except ChildProcessError:
        return False  # the arbiter reaped it already


def wait_until(condition: Callable[[], bool], timeout_seconds: float) -> bool:
    deadline = clock.now() + timeout_seconds
    while not condition():
        if clock.now() > deadline:
            return False
        select.select([], [], [], 0.02)
    return True


def python_module(name: str) -> list[str]:
    """The command that runs the module `name` under this interpreter."""
    return [sys.executable, "-m", name]
