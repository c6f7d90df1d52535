import errno
import os
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from greenroom import surroundings
from greenroom.settings import Settings
from greenroom.surroundings import (
    can_be_made,
    memory_folder,
    missing_certificate,
    no_temporary_folder,
    no_worker_ever,
    shortcomings,
    unfit_certificate,
    useless_addresses,
)


def test_where_all_is_well_nothing_is_said(tmp_path: Path) -> None:
    assert shortcomings(Settings(recordings_path=str(tmp_path / "a" / "b")), has_pidfd=True) == []
    assert no_temporary_folder() == ""
    assert memory_folder() == "/dev/shm"


def test_a_folder_under_a_file_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert can_be_made(tmp_path / "new" / "folder")
    assert not can_be_made(tmp_path / "file" / "folder")
    [said] = shortcomings(Settings(recordings_path=str(tmp_path / "file" / "folder")), has_pidfd=True)
    assert said.startswith("GREENROOM_RECORDINGS_PATH=")
    assert "name another one" in said


def test_a_folder_of_a_file_system_that_is_mounted_read_only_is_not_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    assert memory_folder() is None
    assert not can_be_made(Path("/srv/recordings"))


@pytest.mark.usefixtures("_no_shared_memory")
def test_without_shared_memory_heartbeats_are_said_to_go_to_disk() -> None:
    [said] = shortcomings(Settings(), has_pidfd=True)

    assert memory_folder() is None
    assert "--shm-size" in said


@pytest.fixture
def _no_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(surroundings, "SHARED_MEMORY", tmp_path / "shm")


def test_a_kernel_without_pidfds_is_named_with_the_one_that_has_them() -> None:
    [said] = shortcomings(Settings(), has_pidfd=False)

    assert "Linux 5.3 has it" in said


def test_a_user_that_may_not_start_workers_as_another_one_is_told_so() -> None:
    refused = PermissionError(errno.EPERM, "Operation not permitted")
    same = SimpleNamespace(uid=os.geteuid(), gid=os.getegid())

    said = no_worker_ever(refused, SimpleNamespace(uid=os.geteuid() + 1, gid=os.getegid()))

    assert said.endswith("leave --user and --group out, or start as root")
    assert "--worker-tmp-dir" in no_worker_ever(refused, same)
    assert no_worker_ever(OSError(errno.ENOMEM, "Cannot allocate memory"), same) == ""


def test_no_place_for_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)

    assert "--tmpfs /tmp" in no_temporary_folder()


def test_who_listens_on_an_address_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [said] = useless_addresses([("127.0.0.1", port), "/tmp/shop.sock"])

    assert said.startswith(f"127.0.0.1:{port} is taken by ")
    assert f"(pid {os.getpid()})" in said
    assert useless_addresses([("127.0.0.1", port), 3]) == []


def test_addresses_that_can_not_be_had_are_named_with_what_to_do(tmp_path: Path) -> None:
    said = useless_addresses([("192.0.2.1", 8000), str(tmp_path / "none" / "x.sock"), "/" + "a" * 120])

    assert "192.0.2.1 is no address of this machine" in said[0]
    assert f"{tmp_path / 'none'} is no folder that this user can write" in said[1]
    assert "is longer than" in said[2]
    assert all("with --bind" in each for each in said)


def test_a_port_that_is_not_for_this_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(surroundings.socket.socket, "bind", refuse)

    [said] = useless_addresses([("127.0.0.1", 80)])
    assert "a port of 1024 or above" in said


def test_a_certificate_that_is_none_is_told_before_workers_start(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    missing, wrong, off = (
        SimpleNamespace(certfile=path and str(tmp_path / path), keyfile=None) for path in ("x.pem", "none.pem", None)
    )

    assert "--certfile" in missing_certificate(missing)
    assert missing_certificate(wrong) == missing_certificate(off) == ""
    assert "it has no certificate" in unfit_certificate(wrong)
    assert unfit_certificate(off) == ""
