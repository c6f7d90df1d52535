"""Answers that are files, sent from where they stand and closed once."""

import gzip
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .answers import GET, HEAD, OLD, Start
from .harness import BOTH, Ours, serve

# --- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4000)
    return path


def sends(open_file: Callable[[], Any], *, length: int | None = None, prefix: bytes = b"") -> Any:
    def application(environ: dict[str, Any], start_response: Start) -> Any:
        headers = [] if length is None else [("Content-Length", str(length))]
        write = start_response("200 OK", headers)
        if prefix:
            write(prefix)
        return environ["wsgi.file_wrapper"](open_file())

    return application


def body_of(kind: Any, application: Any, data: bytes = GET) -> bytes:
    with serve(kind, application) as site, site.connect() as client:
        client.send(data)
        return client.answer().body


@BOTH
@pytest.mark.parametrize("data", [GET, OLD], ids=["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("offset", [0, 1, 5000, 1_023_999, 1_024_000])
def test_file_is_sent_from_where_it_stands(kind: Any, file: Path, offset: int, data: bytes) -> None:
    def open_file() -> Any:
        opened = file.open("rb")
        opened.seek(offset)
        return opened

    assert body_of(kind, sends(open_file), data) == file.read_bytes()[offset:]


@BOTH
def test_part_of_a_file_is_sent(kind: Any, file: Path) -> None:
    def open_file() -> Any:
        opened = file.open("rb")
        opened.seek(300)
        return opened

    assert body_of(kind, sends(open_file, length=5000)) == file.read_bytes()[300:5300]


def test_file_that_was_read_from_is_sent_from_there(file: Path) -> None:
    def open_file() -> Any:
        opened = file.open("rb")
        opened.read(10)  # 8 KiB are in its buffer now
        return opened

    assert body_of(Ours, sends(open_file)) == file.read_bytes()[10:]


def test_rest_of_a_body_can_be_a_file(file: Path) -> None:
    size = file.stat().st_size
    assert body_of(Ours, sends(lambda: file.open("rb"), length=size + 3, prefix=b"abc")) == b"abc" + file.read_bytes()


def test_file_shorter_than_its_length_breaks_the_connection(file: Path) -> None:
    with serve(Ours, sends(lambda: file.open("rb"), length=2_000_000)) as site:
        assert site.ask(GET).endswith(b"<reset>")


@pytest.mark.parametrize("kind_of_file", ["BytesIO", "gzip", "temporary", "pipe", "object"])
def test_what_only_looks_like_a_file_is_read(file: Path, kind_of_file: str, tmp_path: Path) -> None:
    content = file.read_bytes()

    def open_file() -> Any:
        if kind_of_file == "BytesIO":
            return io.BytesIO(content)
        if kind_of_file == "gzip":
            (tmp_path / "gz").write_bytes(gzip.compress(content))
            return gzip.open(tmp_path / "gz")
        if kind_of_file == "temporary":
            temporary = tempfile.NamedTemporaryFile()
            temporary.write(content)
            temporary.seek(0)
            return temporary
        if kind_of_file == "pipe":
            reader, writer = os.pipe()
            os.write(writer, b"in a pipe")
            os.close(writer)
            return open(reader, "rb")
        return type("Odd", (), {"read": io.BytesIO(content).read, "fileno": lambda self: 1})()

    assert body_of(Ours, sends(open_file)) == (b"in a pipe" if kind_of_file == "pipe" else content)


@BOTH
def test_head_of_a_file_has_no_body(kind: Any, file: Path) -> None:
    with serve(kind, sends(lambda: file.open("rb"), length=1_024_000)) as site:
        answer = site.ask(HEAD + HEAD)

    assert answer.count(b"Content-Length: 1024000\r\n") == 2
    assert answer.endswith(b"\r\n\r\n")


def test_file_is_closed_once(file: Path) -> None:
    closed = []

    class File(io.FileIO):
        def close(self) -> None:
            if not self.closed:
                closed.append(self)
            super().close()

    assert body_of(Ours, sends(lambda: File(str(file)))) == file.read_bytes()
    assert len(closed) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_a_file_of_proc_is_read() -> None:
    assert b"Name:" in body_of(Ours, sends(lambda: open("/proc/self/status", "rb")))
