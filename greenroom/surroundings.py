"""Shortcomings of the machine, its file systems and its kernel, a sentence each that says what to change.

Asked once, in the arbiter, before it listens.
"""

import errno
import os
import socket
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from .gunicorns_parts import Config
from .settings import Settings, environment_name

# Where Linux keeps files that are no more than memory.
SHARED_MEMORY = Path("/dev/shm")
# sun_path of Linux is 108 bytes, of macOS 104, with a zero at its end.
LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
LASTING = (PermissionError, FileNotFoundError, NotADirectoryError)


def memory_folder() -> str | None:
    """Where a worker's heartbeat file costs no disk; None: gunicorn's own choice, where there is no such place."""
    is_usable = sys.platform == "linux" and SHARED_MEMORY.is_dir() and is_writable(SHARED_MEMORY)
    return str(SHARED_MEMORY) if is_usable else None


def no_temporary_folder() -> str:
    """Why no file can be made at all; "" where one can. gunicorn and the scoreboard need a few."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        return (
            "no folder for temporary files can be written (TMPDIR, /tmp, /var/tmp, the working directory): make one "
            "writable, in a container with `--tmpfs /tmp`"
        )
    return ""


def no_worker_ever(exc: OSError | RuntimeError, cfg: Config) -> str:
    """Why `exc`, raised where gunicorn begins to start a worker, will come each time; "" where it may pass."""
    if isinstance(exc, OSError) and not (isinstance(exc, LASTING) or exc.errno == errno.EROFS):
        return ""
    if isinstance(exc, PermissionError) and (cfg.uid, cfg.gid) != (os.geteuid(), os.getegid()):
        return (
            f"user {os.geteuid()} may start no worker as user {cfg.uid}, group {cfg.gid}: leave --user and --group "
            "out, or start as root"
        )
    return f"no worker can be started: {str(exc).rstrip('.')}; --worker-tmp-dir names a folder for its heartbeat"


def shortcomings(settings: Settings, *, has_pidfd: bool) -> list[str]:
    """Return the shortcomings that the server can do without."""
    found = []
    recordings = Path(settings.recordings_path)
    if settings.recordings_kept and settings.ops_address is not None and not can_be_made(recordings):
        found.append(
            f"{environment_name('recordings_path')}={recordings}: no folder can be written there, so nothing is "
            f"recorded; name another one, or set {environment_name('recordings_kept')}=0"
        )
    if sys.platform == "linux" and memory_folder() is None:
        found.append(
            f"{SHARED_MEMORY} is not there or can't be written: workers' heartbeats go to {tempfile.gettempdir()}, and "
            "a busy disk can have a worker taken for dead; mount it, in a container with `--shm-size`"
        )
    if sys.platform == "linux" and not has_pidfd:
        found.append(
            "this kernel (or the container's seccomp profile) has no pidfd_open: processes that the application starts "
            "are waited for as gevent does; Linux 5.3 has it"
        )
    return found


def useless_addresses(addresses: Iterable[Any]) -> list[str]:
    """A sentence for each address that can't be listened on: another program does, or it can't be had at all."""
    return [said for address in addresses if (said := _why_useless(address))]


def _why_useless(address: Any) -> str:
    if isinstance(address, int):
        return ""  # a socket that it was started with (fd://)
    if not isinstance(address, tuple):
        return _why_no_path(os.fsdecode(address))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    shown = f"{address[0]}:{address[1]}"
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return f"{shown} is taken by {_listener(address[1])}: stop it, or choose another address with --bind"
            if exc.errno == errno.EADDRNOTAVAIL:
                return f"{address[0]} is no address of this machine: choose one with --bind; 0.0.0.0 means all"
            if exc.errno in (errno.EACCES, errno.EPERM):
                return f"this user may not listen on {shown}: choose a port of 1024 or above with --bind"
    return ""


def _why_no_path(path: str) -> str:
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        return f"unix:{path} is longer than the {LONGEST_SOCKET_PATH} bytes of a socket: choose another with --bind"
    folder = Path(path).parent
    if not path.startswith("\0") and not (folder.is_dir() and is_writable(folder)):
        return f"unix:{path}: {folder} is no folder that this user can write; make it, or choose another with --bind"
    return ""


def missing_certificate(cfg: Config) -> str:
    """The file for TLS that can't be read, which ends gunicorn with a traceback; "" where all can."""
    for option, path in (("--certfile", cfg.certfile), ("--keyfile", cfg.keyfile)):
        if path and not os.access(path, os.R_OK):
            return f"{option} {path}: there is no such file, or this user can't read it"
    return ""


def unfit_certificate(cfg: Config) -> str:
    """Why gunicorn's own context for TLS would fail, unless it needs a passphrase; a hook may make another one."""
    if not cfg.certfile:
        return ""
    import ssl  # which is patched first where patching is wanted

    asked = []

    def passphrase() -> str:
        asked.append(True)
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cfg.certfile, cfg.keyfile, passphrase)
    except (ssl.SSLError, OSError) as exc:
        if not asked:
            return f"--certfile {cfg.certfile}: it has no certificate, or no key there or in --keyfile fits it ({exc})"
    return ""


def can_be_made(folder: Path) -> bool:
    """Whether `folder` is one that can be written, or could be made."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    return nearest.is_dir() and is_writable(nearest)


def is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _listener(port: int) -> str:
    """The program that listens on `port`, as far as this user may know."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN
            if is_listener and getattr(connection.laddr, "port", None) == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"
