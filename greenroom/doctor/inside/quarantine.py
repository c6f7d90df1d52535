"""Leaving nothing behind: the application's writes go to copies, or are noted so that they can be taken back.

    SQLite        a database file is opened as a copy in the scratch folder, made when it is first opened
    PostgreSQL    transactions are read only, by PGOPTIONS (see scratch)
    new files     noted in a list; `scratch.tidy` removes them
    files that are there    copied or noted before they are written over, removed or renamed; `scratch.tidy` puts them
                            back. What is appended stays: a log may have lines of other processes by then.

Nothing of that with `--allow-writes`.
"""

import _thread
import contextlib
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LARGEST_COPY_BYTES = 300_000_000
CREATED, CHANGED, REMOVED, MOVED, LINKED = "created", "changed", "removed", "moved", "linked"
EVENTS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"})
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
        self.made: set[str] = set()  # those that were not there before
        self.copies = 0
        self.busy: set[int] = set()  # threads whose files are the doctor's own at the moment

    def install(self) -> None:
        sys.addaudithook(self.hook)
        connect = _around(sqlite3.connect, self)
        module: Any = sqlite3
        module.connect = module.dbapi2.connect = connect

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Never raises: an exception here would be the application's."""
        if event not in EVENTS:
            return
        me = _thread.get_ident()
        if me in self.busy:
            return
        self.busy.add(me)
        try:
            with contextlib.suppress(Exception):
                self._note(event, arguments)
        finally:
            self.busy.discard(me)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and not isinstance(path, int):
                self._written(_absolute(path), is_appended=bool(flags & os.O_APPEND))
        elif event == "os.rename":
            self._renamed(_absolute(arguments[0], arguments[2]), _absolute(arguments[1], arguments[3]))
        elif event in ("os.remove", "os.rmdir"):
            self._removed(_absolute(arguments[0], arguments[1]))
        else:
            number = 1 if event in ("os.link", "os.symlink") else 0
            self._written(_absolute(arguments[number], -1 if event == "os.truncate" else arguments[-1]))

    def _written(self, name: str, *, is_appended: bool = False) -> None:
        if name in self.seen or self._is_nobodys(name):
            return
        self.seen.add(name)
        if not os.path.lexists(name):
            self.made.add(name)
            self._write(CREATED, name)
        elif not is_appended and os.path.isfile(name) and os.path.getsize(name) < LARGEST_COPY_BYTES:
            self._write(CHANGED, self._copied(name), name)

    def _removed(self, name: str) -> None:
        if self._is_nobodys(name) or not os.path.lexists(name):
            return
        if name not in self.made:
            if os.path.islink(name):
                self._write(LINKED, os.readlink(name), name)
            elif os.path.isdir(name):
                self._write(REMOVED, "", name)
            elif os.path.getsize(name) < LARGEST_COPY_BYTES:
                self._write(REMOVED, self._copied(name), name)
        self._forget(name)

    def _renamed(self, source: str, target: str) -> None:
        if not os.path.lexists(source):
            return
        self._written(target)
        if source in self.made:
            self.made.add(target)
        elif not self._is_nobodys(source):
            self._write(MOVED, source, target)
            self.made.discard(target)
        self._forget(source)

    def _forget(self, name: str) -> None:
        """It is gone; a file of that name that comes later is a new one."""
        self.seen.discard(name)
        self.made.discard(name)

    def _copied(self, name: str) -> str:
        self.copies += 1
        copy = f"{self.scratch}/before-{self.copies}-{os.getpid()}"
        shutil.copy2(name, copy)
        return copy

    def _is_nobodys(self, name: str) -> bool:
        return name.startswith((str(self.scratch), *NO_FILES)) or "\n" in name

    def _write(self, *words: str) -> None:
        os.write(self.notes, ("\0".join(words) + "\n").encode(errors="surrogateescape"))

    def database(self, path: str) -> str:
        """The copy that is opened in the place of the database file `path`."""
        name = os.path.abspath(path)
        if name.startswith(str(self.scratch)):
            return path
        folder = self.scratch / os.environ.get("_GREENROOM_DOCTOR_DATABASES", "databases")
        copy = folder / name.strip("/").replace("/", "%")
        me = _thread.get_ident()
        self.busy.add(me)
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
            self.busy.discard(me)
        return str(copy)


def _absolute(path: Any, folder: Any = -1) -> str:
    """The file's full name; `folder` is the descriptor of the folder that it is relative to, if it is one."""
    if isinstance(folder, int) and folder >= 0:
        path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
    return os.path.abspath(os.fsdecode(path))


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
