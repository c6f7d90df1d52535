"""A worker that can't answer costs nobody a wait, and half an answer is none."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from greenroom.ops import worker_server
from greenroom.ops.socket_folder import SocketFolder
from greenroom.ops.worker_client import Asker, ask
from greenroom.ops.worker_server import WorkerServer

LONG = 10.0


@pytest.fixture
def socket_folder() -> Iterator[SocketFolder]:
    made = SocketFolder.make()
    yield made
    made.remove()


def worker_that(path: Path, *behave: Callable[[socket.socket], None]) -> list[socket.socket]:
    """Accepts one connection for each behaviour, in order. Returns the sockets that are open."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    sockets = [listener]

    def serve() -> None:
        for behaviour in behave:
            connection, _ = listener.accept()
            sockets.append(connection)
            connection.recv(4096)
            behaviour(connection)

    threading.Thread(target=serve, daemon=True).start()
    return sockets


def says(words: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.sendall(words)
        connection.close()

    return behave


def keeps_silent(connection: socket.socket) -> None:
    """Accepted, and no word."""


def close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


@pytest.mark.parametrize("words", [b'{"pid": 1', b'{"pid": 1}', b"", b"no json\n"])
def test_an_answer_that_was_cut_short_is_none(socket_folder: SocketFolder, words: bytes) -> None:
    """A worker that is killed in the middle of it."""
    sockets = worker_that(socket_folder.socket(1), says(words), says(words))
    asker = Asker()

    asker.ask([(1, socket_folder.socket(1))], {"ask": "snapshot"})

    assert asker.wait(LONG) == {1: None}
    assert ask(socket_folder.socket(1), {"ask": "snapshot"}, LONG) is None
    close(sockets)


def test_a_silent_worker_has_one_question_open_and_holds_up_nobody(socket_folder: SocketFolder) -> None:
    silent = worker_that(socket_folder.socket(1), keeps_silent)
    talking = worker_that(socket_folder.socket(2), says(b'{"n": 1}\n'), says(b'{"n": 2}\n'))
    both = [(1, socket_folder.socket(1)), (2, socket_folder.socket(2))]
    asker = Asker()

    answers = []
    for _ in range(2):
        asker.ask(both, {"ask": "snapshot"})
        answers.append(asker.wait(0.3))

    assert answers == [{2: {"n": 1}}, {2: {"n": 2}}]
    assert len(silent) == 2, "the listener and one connection"
    asker.forget([1])
    assert asker.open == {}
    close(silent + talking)


def test_who_is_not_there_is_none_at_once(socket_folder: SocketFolder) -> None:
    asker = Asker()

    asker.ask([(1, socket_folder.socket(1))], {"ask": "snapshot"})

    assert asker.wait(LONG) == {1: None}
    assert ask(socket_folder.socket(1), {"ask": "snapshot"}, LONG) is None


def test_a_folder_is_its_owners_and_its_paths_short(
    socket_folder: SocketFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/tmp/" + "x" * 200)
    deep = SocketFolder.make()

    assert socket_folder.folder.stat().st_mode & 0o777 == 0o700
    assert len(str(deep.socket(4_000_000))) < 100
    deep.remove()


@pytest.fixture
def answers(socket_folder: SocketFolder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`answers({...})`: what a worker of 10,000 requests says to one question, over its socket."""
    said = {"in_flight": [{"id": f"r{number}"} for number in range(10_000)], "version": 1}
    knowledge = SimpleNamespace(snapshot=lambda worker: dict(said), stacks=lambda worker, request_id: None)
    monkeypatch.setattr(worker_server, "knowledge", lambda: knowledge)
    worker = SimpleNamespace(serving=SimpleNamespace(insight=None), log=None)
    WorkerServer(worker, socket_folder).start()
    return lambda asked: ask(socket_folder.socket(os.getpid()), asked, LONG)


def test_it_answers_and_goes_on_after_nonsense(answers: Callable[..., Any], socket_folder: SocketFolder) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_folder.socket(os.getpid())))
        client.sendall(b"\x00nonsense\n")
        assert b"error" in client.recv(4096)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_folder.socket(os.getpid())))  # and leaves without a word

    assert "error" in answers({"ask": "secrets"})
    assert len(answers({"ask": "snapshot"})["in_flight"]) == 10_000
    assert answers({"ask": "stacks", "id": "gone"}) == {"gone": True}
    assert len(json.dumps(answers({"ask": "everything", "most": 3}))) > 100_000
    assert answers({"ask": "ring"}) == {}
