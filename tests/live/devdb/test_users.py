"""The server of root runs as another user; one without rights has its own."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from devdb import programs
from devdb.programs import ClusterError
from devdb.server import EmbeddedPostgres

from .asking import MAY_FORK, rows

pytestmark = pytest.mark.live
is_root = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root: the server runs as another user only then")


@needs_root
def test_as_root_folders_above_stay_closed_and_the_server_works_all_the_same(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / "instance" / "postgres"
    tmp_path.chmod(0o700)
    postgres = EmbeddedPostgres(folder)
    try:
        for _ in range(2):  # new, and found
            assert rows(postgres.start(), "SELECT 1") == [(1,)]
            assert EmbeddedPostgres(folder).is_alive()
            postgres.stop()
            assert not postgres.is_alive()
    finally:
        postgres.stop()

    assert [stat.S_IMODE(parent.stat().st_mode) for parent in (closed, tmp_path)] == [0o700, 0o700]


@needs_root
@pytest.mark.filterwarnings(MAY_FORK)
def test_as_root_programs_that_cannot_be_reached_are_copied_once(tmp_path: Path) -> None:
    """A clone, with its virtual environment, in a home that is closed to others."""
    closed, temporary = tmp_path / "closed", Path(tempfile.mkdtemp(prefix="greenroom-", dir="/tmp"))
    temporary.chmod(0o755)
    installed = programs.runnable_package(None)
    for part in (installed, programs.libraries_of(installed)):
        shutil.copytree(part, closed / part.name, symlinks=True)
    closed.chmod(0o700)
    ids = programs.server_ids(tmp_path)
    assert ids is not None
    try:
        copy = programs.package_for(ids, closed / installed.name, temporary)
        version = subprocess.run(
            [copy / "pginstall18" / "bin" / "postgres", "--version"],
            user=ids[0], group=ids[1], extra_groups=[], cwd="/", capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        again = programs.package_for(ids, closed / installed.name, temporary)
        copy.parent.chmod(0o777)
        with pytest.raises(ClusterError, match="is not ours alone"):
            programs.package_for(ids, closed / installed.name, temporary)
    finally:
        shutil.rmtree(temporary)

    assert "PostgreSQL" in version
    assert again == copy
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
@pytest.mark.filterwarnings(MAY_FORK)
def test_works_as_a_normal_user() -> None:
    nobody = pwd.getpwnam("nobody")
    if programs.closed_to((nobody.pw_uid, nobody.pw_gid), programs.runnable_package(None)):
        pytest.skip("this checkout lies in a folder that a normal user may not pass")
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    shutil.chown(base, "nobody")

    def use() -> None:
        postgres = EmbeddedPostgres(base / "postgres")
        assert rows(postgres.start(), "SELECT 1") == [(1,)]
        assert (base / "postgres").owner() == "nobody"
        postgres.stop()
        assert not postgres.is_alive()

    assert as_nobody(use) == ""
    shutil.rmtree(base)


@needs_root
@pytest.mark.filterwarnings(MAY_FORK)
def test_data_of_another_user_is_a_clear_error(cluster_folder: Path) -> None:
    error = as_nobody(lambda: EmbeddedPostgres(cluster_folder).start())

    assert "Permission denied" in error
    assert "made by another user?" in error


def as_nobody(call: Callable[[], object]) -> str:
    """Run `call` in a child process of an unprivileged user; returns its error, empty when there was none."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            call()
        except BaseException as exc:
            os.write(writing, f"{type(exc).__name__}: {exc}".encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading) as pipe:
        return pipe.read()
