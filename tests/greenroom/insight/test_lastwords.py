"""The last lines of a worker, and how they get into a log that others write to as well."""

import faulthandler
import logging
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from greenroom import clock
from greenroom.insight import lastwords
from greenroom.insight.account import Account
from greenroom.insight.observer import Insight
from greenroom.settings import Settings
from greenroom.worker.load import Turns


@pytest.fixture
def insight() -> Iterator[Insight]:
    hub = gevent.get_hub()
    turns = Turns(hub.loop, lambda _: None, lambda: None)
    insight = Insight(SimpleNamespace(hub=hub, loop=hub.loop, turns=turns), Settings())
    yield insight
    insight.stalls.stop()


def worker(insight: Insight, file: Any = None) -> Any:
    error_log = logging.Logger("test")
    if file is not None:
        error_log.addHandler(logging.StreamHandler(file))
    return SimpleNamespace(
        pid=7,
        serving=SimpleNamespace(insight=insight, in_flight={}),
        log=SimpleNamespace(error_log=error_log),
        cfg=SimpleNamespace(worker_tmp_dir=None),
    )


def test_path_of_a_request_forges_no_line_and_tells_no_token(insight: Insight) -> None:
    account = Account(clock.now())
    token = "vGm0Oq3pXrJ4mUlG3VxLrA"
    account.environ = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/p/{token}\n[2026-11-22] [ERROR] stall: forged"}
    insight.slices.live[account] = None

    said = lastwords.words(worker(insight), "Worker 7 is told to go at once")

    assert len([line for line in said.splitlines() if "/p/" in line]) == 1
    assert not any(line.startswith("[") for line in said.splitlines())
    assert token not in said
    assert "forged" not in said


def test_pieces_are_whole_lines_that_a_pipe_does_not_tear(insight: Insight) -> None:
    lines = [f"  {number} {'é' * (number % 90)}" for number in range(500)] + ["x" * 10_000, "end"]

    pieces = list(lastwords.pieces("\n".join(lines)))

    assert all(len(f"{piece}\n".encode()) <= lastwords.LARGEST_PIECE_BYTES < select.PIPE_BUF for piece in pieces)
    said = [line for piece in pieces for line in piece.split("\n")]
    assert said[:500] == lines[:500]
    assert (set(said[500]), said[501:]) == ({"x"}, ["end"])


def test_cry_is_whole_lines_at_once_each_with_its_worker(insight: Insight) -> None:
    for _ in range(200):
        account = Account(clock.now())
        account.environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/part-of-a-path" * 10}
        insight.slices.live[account] = None
    written, log = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # keeps apart what is written apart
    written.setblocking(False)

    with written, log:
        lastwords.cry(worker(insight, log), "Worker 7 is killed")
        texts = [written.recv(100_000).decode() for _ in range(3)]

    assert all(len(text.encode()) <= select.PIPE_BUF for text in texts)
    assert all(text.startswith("[") and text.endswith("\n") for text in texts)
    assert all("[7] [ERROR] " in text.splitlines()[0] for text in texts)
    assert "".join(texts).count("/part-of-a-path") >= lastwords.MOST_REQUESTS * 10 / 2


def test_stacks_of_a_worker_that_ended_are_told_in_one_piece(
    insight: Insight, caplog: pytest.LogCaptureFixture
) -> None:
    dead = worker(insight)
    lastwords.prepare(dead)
    # From a thread, whose stack fits in one piece: the test runner's own is longer in a folder with a long path.
    writer = threading.Thread(target=faulthandler.dump_traceback, args=(dead.stacks_file, False))
    writer.start()
    writer.join()

    with caplog.at_level("ERROR", "gunicorn.error"):
        lastwords.tell(dead)
        lastwords.tell(worker(insight))  # was forked without

    (record,) = caplog.records
    assert record.getMessage().startswith("Worker 7 has ended; its threads were:\n")
    assert ", in run" in record.getMessage() or "in run\n" in record.getMessage()
    assert dead.stacks_file.closed


def test_worker_that_wrote_nothing_is_not_told_of(insight: Insight, caplog: pytest.LogCaptureFixture) -> None:
    dead = worker(insight)
    lastwords.prepare(dead)

    lastwords.tell(dead)

    assert caplog.records == []


def test_a_worker_that_is_given_up_tells_its_stacks_also_where_python_was_started_with_a_faulthandler() -> None:
    code = (
        "import os, signal, sys, tempfile, types\n"
        "from greenroom.insight import lastwords\n"
        "signal.signal(signal.SIGABRT, lambda *_: os.write(1, b'and then the handler'))  # as gunicorn has done\n"
        "worker = types.SimpleNamespace(stacks_file=tempfile.TemporaryFile(buffering=0))\n"
        "lastwords.register(worker)\n"
        "os.kill(os.getpid(), signal.SIGABRT)\n"
        "worker.stacks_file.seek(0)\n"
        "os.write(1, worker.stacks_file.read())\n"
    )

    said = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout

    assert said.startswith("and then the handler")
    assert 'File "<string>", line 6 in <module>' in said
