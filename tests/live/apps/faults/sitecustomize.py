"""The system refuses: as long as the file FAULTS_FILE has a word in it, calls of this process fail with that error.

EMFILE, ENFILE   nothing is opened
ENOSPC           nothing is written to files
ENOMEM           nothing is opened, listed, or read from open files
ENOENT           /proc has vanished
"""

import builtins
import errno
import functools
import io
import os
from collections.abc import Callable
from typing import Any

real_open, real_read = os.open, os.read
FILE = os.environ.get("FAULTS_FILE", "")


def word() -> str:
    try:
        descriptor = real_open(FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return real_read(descriptor, 20).decode().strip()
    finally:
        real_close(descriptor)


real_close = os.close
OPENS = ("EMFILE", "ENFILE", "ENOMEM")


def failing(plain: Callable[..., Any], words: tuple[str, ...], is_of_paths: bool = True) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        name = word()
        is_in_proc = is_of_paths and str(args[0] if args else "").startswith("/proc")
        if name in words or (name == "ENOENT" and is_in_proc):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)), *args[:1])
        return plain(*args, **kwargs)

    return call


if FILE:
    builtins.open = io.open = failing(io.open, OPENS)  # type: ignore[assignment]
    for name, words, is_of_paths in (
        ("open", OPENS, True),
        ("listdir", OPENS, True),
        ("scandir", OPENS, True),
        ("pipe", OPENS, False),
        ("dup", OPENS, False),
        ("pidfd_open", OPENS, False),
        ("mkdir", ("ENOSPC",), True),
        ("replace", ("ENOSPC",), True),
        ("fsync", ("ENOSPC",), False),
        ("write", ("ENOSPC",), False),
        ("pread", ("ENOMEM",), False),
    ):
        if hasattr(os, name):
            setattr(os, name, failing(getattr(os, name), words, is_of_paths))
