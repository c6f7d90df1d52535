"""Asking workers, without waiting for one that can't answer.

`Asker` has at most one question open at each worker, so that one that is blocked for a minute finds one question
waiting and not sixty. `ask` is for a single question of somebody who looks at the answer.
"""

import json
import select
import selectors
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import clock

# 10,000 requests with their stacks are less.
LONGEST_ANSWER = 64_000_000
GIVE_UP_SECONDS = 60.0
CHUNK = 1 << 18


class Question:
    """One question on its way; `answer` is set when it is over, to None when it failed."""

    def __init__(self, path: Path, asked: Mapping[str, object], now: float) -> None:
        self.asked_at = now
        self.is_over = False
        self.answer: Any = None
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(str(path))
            self._socket.send(json.dumps(asked).encode() + b"\n")
        except OSError:
            self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        """Take what has come. An answer is whole when it ends with its newline."""
        try:
            received = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._received += received
        if received and len(self._received) <= LONGEST_ANSWER:
            return
        if self._received.endswith(b"\n"):
            with suppress(ValueError):  # says nothing, then
                self.answer = json.loads(self._received)
        self.close()

    def close(self) -> None:
        self.is_over = True
        self._socket.close()


class Asker:
    """Asks any number of workers at the same time. Runs on: one thread of the ops process."""

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.open: dict[int, Question] = {}

    def ask(self, workers: Iterable[tuple[int, Path]], asked: Mapping[str, object]) -> None:
        """Put the question to each (pid, socket) that has none open."""
        now = self.now()
        for pid, path in workers:
            if pid not in self.open:
                self.open[pid] = Question(path, asked, now)

    def wait(self, seconds: float) -> dict[int, Any]:
        """Answers by pid, those that are there within `seconds`; returns when all are. Failed ones are None."""
        until = self.now() + seconds
        answers: dict[int, Any] = {}
        while True:
            for pid, question in list(self.open.items()):
                if question.is_over or self.now() - question.asked_at > GIVE_UP_SECONDS:
                    question.close()
                    answers[pid] = question.answer
                    del self.open[pid]
            left = until - self.now()
            if not self.open or left <= 0:
                return answers
            with selectors.DefaultSelector() as selector:
                for question in self.open.values():
                    selector.register(question, selectors.EVENT_READ)
                for key, _ in selector.select(left):
                    key.fileobj.read()  # type: ignore[union-attr]

    def forget(self, pids: Iterable[int]) -> None:
        for pid in pids:
            if (question := self.open.pop(pid, None)) is not None:
                question.close()


def ask(path: Path, asked: Mapping[str, object], timeout_seconds: float) -> object:
    """The answer to one question; None when there is none in time. Waits only here."""
    question = Question(path, asked, clock.now())
    until = question.asked_at + timeout_seconds
    while not question.is_over:
        left = until - clock.now()
        if left <= 0 or not select.select([question], [], [], left)[0]:
            question.close()
            return None
        question.read()
    return question.answer
