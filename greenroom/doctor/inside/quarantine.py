"""Leaving nothing behind: the application's writes go to copies, or are noted so that they can be taken back.

    SQLite        a database file is opened as a copy in the scratch folder, made when it is first opened
    PostgreSQL    transactions are read only, by PGOPTIONS (see scratch)
    new files     noted in a list; `scratch.tidy` removes them
    files that are there and are written over    copied first; `scratch.tidy` puts them back

Nothing of that with `--allow-writes`.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LARGEST_COPY_BYTES = 300_000_000
CREATED, CHANGED = "created", "changed"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Folders of the kernel: programs write there, and nothing is kept.
NO_FILES = ("/dev/", "/proc/", "/sys/")

_real_connect: Any = sqlite3.connect


class Quarantine:
    """Runs on: any thread of the application's processes."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.root = os.getcwd()
        self.notes = os.open(scratch / "files", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.seen: set[str] = set()
        self._is_in_hook = False

    def install(self) -> None:
        sys.addaudithook(self.hook)
        connect = _around(sqlite3.connect, self)
        module: Any = sqlite3
        module.connect = module.dbapi2.connect = connect

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Never raises: an exception here would be the application's."""
        if event not in ("open", "os.mkdir", "os.rename") or self._is_in_hook:
            return
        self._is_in_hook = True
        try:
            with contextlib.suppress(Exception):
                self._note(event, arguments)
        finally:
            self._is_in_hook = False

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING or isinstance(path, int):
                return
        else:
            path, flags = (arguments[1] if event == "os.rename" else arguments[0]), os.O_CREAT
        name = os.path.abspath(os.fsdecode(path))
        if name in self.seen or name.startswith((str(self.scratch), *NO_FILES)):
            return
        self.seen.add(name)
        if not os.path.lexists(name):
            os.write(self.notes, f"{CREATED} {name}\n".encode())
        elif not flags & os.O_APPEND and os.path.isfile(name) and os.path.getsize(name) < LARGEST_COPY_BYTES:
            copy = self.scratch / f"before-{len(self.seen)}-{os.getpid()}"
            shutil.copy2(name, copy)
            os.write(self.notes, f"{CHANGED} {copy} {name}\n".encode())

    def database(self, path: str) -> str:
        """The copy that is opened in the place of the database file `path`."""
        name = os.path.abspath(path)
        if name.startswith(str(self.scratch)):
            return path
        folder = self.scratch / "databases"
        copy = folder / name.strip("/").replace("/", "%")
        self._is_in_hook = True
        try:
            folder.mkdir(exist_ok=True)
            if not copy.exists() and os.path.isfile(name):
                if os.path.getsize(name) > LARGEST_COPY_BYTES:
                    return path
                part = folder / f"{os.getpid()}.part"
                shutil.copy2(name, part)
                for suffix in ("-wal", "-journal"):
                    if os.path.isfile(name + suffix) and not os.path.exists(f"{copy}{suffix}"):
                        shutil.copy2(name + suffix, f"{copy}{suffix}")
                part.replace(copy)
        except OSError:
            return path
        finally:
            self._is_in_hook = False
        return str(copy)


def _around(connect: Any, quarantine: Quarantine) -> Any:
    def connect_to_copy(database: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(database, bytes | os.PathLike):
            database = os.fsdecode(database)
        if isinstance(database, str) and database not in ("", ":memory:") and ":memory:" not in database:
            if not database.startswith("file:"):
                if os.path.isdir(os.path.dirname(os.path.abspath(database))):
                    database = quarantine.database(database)
            elif "mode=memory" not in database:
                path, mark, query = database.removeprefix("file:").partition("?")
                database = f"file:{quarantine.database(unquote(path.removeprefix('//')))}{mark}{query}"
        return connect(database, *arguments, **options)

    return connect_to_copy


def from_environment() -> Quarantine | None:
    """Return the quarantine that the doctor asked for in this process; None with `--allow-writes`."""
    folder = os.environ.get("_GREENROOM_DOCTOR_SCRATCH", "")
    if not folder or os.environ.get("_GREENROOM_DOCTOR_WRITES"):
        return None
    return Quarantine(Path(folder))
