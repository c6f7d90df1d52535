"""PostgreSQL without installing it: one server in a folder, shared by the processes that need it.

The companion of the gunicorn arbiter, `flask` commands and Celery workers share one server. Each holds a shared lock on
a file while it needs the server; the last one to leave stops it. It is a kernel lock and not a list of process ids,
because the kernel also lets go for a process that was killed with -9.
"""

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import click
import fasteners
import psycopg2

from .cluster import Cluster, ClusterStartError
from .programs import ClusterError

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
# How long a start that fails is tried again: the children of a server that was killed go within a second or two.
RETRY_FOR_SECONDS = 10.0
RETRY_SECONDS = 0.2
DATABASE = "boards"


class EmbeddedPostgresError(click.ClickException, RuntimeError):
    """The embedded server can't be used; the message says why and what to change. On the command line: exit code 1."""


class EmbeddedPostgres:
    """The server whose data lives in `folder`; `start()` finds it running or starts it.

    Works as root too: the server then runs as a system user of its own, because PostgreSQL refuses root.
    """

    # The lock below belongs to the process: closing one handle lets go of it for all. So each process has one handle
    # for each folder, counted here. After a fork the child's copy is not the child's: its process id differs.
    _held: ClassVar[dict[tuple[int, Path], int]] = {}
    _locks: ClassVar[dict[tuple[int, Path], fasteners.InterProcessReaderWriterLock]] = {}
    _one_at_a_time: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.cluster = Cluster(self.folder)
        self._owner_pid: int | None = None

    @property
    def url(self) -> str:
        """The URL of the application's database, whether the server runs or not."""
        return self.cluster.url(DATABASE)

    def start(self, timeout_seconds: float = START_SECONDS) -> str:
        """Make sure the server answers; return the URL of the application's database, which is created if missing.

        Called again while it is held, it starts a server that has died. Raises EmbeddedPostgresError when it does not
        answer within `timeout_seconds`.
        """
        with self._one_at_a_time, self._explained():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            if self._owner_pid != os.getpid():
                self._hold(timeout_seconds)
            try:
                with self._start_lock(timeout_seconds):
                    self._start_until(time.monotonic() + timeout_seconds)
            except BaseException:
                self.stop()
                raise
            return self.url

    def is_alive(self) -> bool:
        """Whether the server process lives; it may be starting or recovering."""
        return self.cluster.postmaster() is not None

    def stop(self) -> None:
        """Let go of the server, and stop it if nobody else holds it. Safe to call twice, and in a forked child."""
        with self._one_at_a_time:
            if self._owner_pid != os.getpid():
                return
            self._owner_pid = None
            atexit.unregister(self.stop)
            key = (os.getpid(), self.folder)
            self._held[key] -= 1
            if self._held[key]:
                return
            del self._held[key]
            lock = self._locks.pop(key)
            lock.release_read_lock()
            try:
                if lock.acquire_write_lock(blocking=False):
                    self.cluster.stop()
            except (ClusterError, OSError):
                logger.exception("embedded postgres did not stop")
            finally:
                lock.release_write_lock()  # closes the file, whether the lock was had or not

    def _hold(self, timeout_seconds: float) -> None:
        key = (os.getpid(), self.folder)
        if key not in self._held:
            lock = fasteners.InterProcessReaderWriterLock(self.folder.with_name(self.folder.name + ".lock"))
            # Waits only while somebody else is stopping the server.
            if not lock.acquire_read_lock(timeout=timeout_seconds):
                raise EmbeddedPostgresError(f"another process holds {lock.path} and is still stopping the server")
            self._locks[key] = lock
            self._held[key] = 0
        self._held[key] += 1
        self._owner_pid = os.getpid()
        atexit.register(self.stop)

    @contextlib.contextmanager
    def _start_lock(self, timeout_seconds: float) -> Iterator[None]:
        """Of several processes that start at once, one makes and starts the server; the others wait and find it."""
        lock = fasteners.InterProcessLock(self.folder.with_name(self.folder.name + ".start.lock"))
        if not lock.acquire(timeout=timeout_seconds):
            raise EmbeddedPostgresError(f"another process has been starting the server in {self.folder} for too long")
        try:
            yield
        finally:
            lock.release()

    def _start_until(self, give_up_at: float) -> None:
        stop_retrying_at = min(give_up_at, time.monotonic() + RETRY_FOR_SECONDS)
        self.cluster.create()
        while True:
            try:
                self.cluster.start(give_up_at - time.monotonic())
                self._create_database()
                return
            except (ClusterStartError, psycopg2.OperationalError) as exc:
                # A server that lives is recovering and gets the whole time; one that does not start gets less.
                if time.monotonic() > (give_up_at if self.is_alive() else stop_retrying_at):
                    raise
                logger.info("embedded postgres not ready", extra={"reason": str(exc).strip()})
                time.sleep(RETRY_SECONDS)

    def _create_database(self) -> None:
        connection = psycopg2.connect(self.cluster.url("postgres"), connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            connection.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what can go wrong into one sentence, with the two ways out."""
        try:
            yield
        except (ClusterError, psycopg2.Error, OSError) as exc:
            reason = str(exc).strip()
            if isinstance(exc, PermissionError):
                reason += " (made by another user? as root the server runs as a user of its own)"
            raise EmbeddedPostgresError(
                f"the embedded PostgreSQL in {self.folder} can't be used: {reason}\n"
                "Set DATABASE_URL to a PostgreSQL of your own, or INSTANCE_PATH to a folder that can be written."
            ) from exc
