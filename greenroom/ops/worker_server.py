"""The worker's side: a thread that says what goes on in it, also while its loop is blocked.

A real thread of the operating system and sockets of the C library: gevent's would wait for the loop. It needs the GIL
for a moment, which computing code gives away every 5 ms; C code that keeps it keeps this thread waiting too, which the
ops process tells from the scoreboard. Logging is not for it: its locks belong to greenlets.

    question   one line of JSON: {"ask": "snapshot"}; {"ask": "stacks", "id": ...}; "everything"; "ring"
    answer     one line of JSON, then the end; one that does not end with a newline is not whole
"""

import _socket
import importlib
import json
import os
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent import monkey
from greenlet import getcurrent

from ..gunicorns_parts import Worker
from ..insight import safepoint, stacks
from . import endings
from .socket_folder import SocketFolder

if TYPE_CHECKING:
    from ..insight.observer import Insight

VERSION = 1
BACKLOG = 16
# Questions come from a process of ours, at once. A silent connection must not hold up the others.
QUESTION_SECONDS = 1.0
ANSWER_SECONDS = 5.0
LONGEST_QUESTION = 4096

# gevent's put greenlets in the place of threads.
start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
thread_ident: Callable[[], int] = monkey.get_original("_thread", "get_ident")
pause: Callable[[float], None] = monkey.get_original("time", "sleep")


class WorkerServer:
    """Runs on: its own thread, started in the worker after the fork, before the application is imported."""

    def __init__(self, worker: Worker, socket_folder: SocketFolder) -> None:
        self.worker = worker
        self.socket_folder = socket_folder
        self.listener: Any = None
        self.main_ident = thread_ident()

    def start(self) -> None:
        safepoint.MAIN.install()
        path = self.socket_folder.socket(os.getpid())
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(BACKLOG)
        except OSError as exc:
            listener.close()
            self.worker.log.warning("the ops process can't ask this worker: %s", exc)
            return
        self.listener = listener
        start_thread(self._run, ())

    def descriptors(self) -> list[int]:
        """Return the descriptors that a forked child closes: it does not answer there."""
        return [] if self.listener is None else [self.listener.fileno()]

    def _run(self) -> None:
        # `timeout` of a C socket polls without the GIL, and without gevent.
        self.listener.settimeout(None)
        while True:
            try:
                descriptor, _ = self.listener._accept()
            except OSError:
                pause(0.1)  # out of descriptors: others will be closed
                continue
            connection = _socket.socket(fileno=descriptor)
            try:
                self._answer(connection)
            except OSError:
                continue  # who asked has gone
            finally:
                connection.close()

    def _answer(self, connection: Any) -> None:
        connection.settimeout(QUESTION_SECONDS)
        question = b""
        while not question.endswith(b"\n") and len(question) < LONGEST_QUESTION:
            received = connection.recv(LONGEST_QUESTION)
            if not received:
                return
            question += received
        answer = json.dumps(self.answer(question), separators=(",", ":"), default=str).encode() + b"\n"
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(answer)

    def answer(self, question: bytes) -> object:
        """Answer one line. An error is an answer as well: this thread must go on."""
        try:
            asked = json.loads(question)
            return self._handlers()[asked["ask"]](asked)
        except Exception as exc:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            return {"error": f"{type(exc).__name__} at {where.filename}:{where.lineno}: {exc}"[:500]}

    def say_where(self, insight: "Insight") -> None:
        """Write where faulthandler writes, see peek, and what is remembered, see insight.ring.

        Runs on: worker start-up. The first request already may keep the GIL, and then nobody can be asked any more.
        """
        where = {"pipe": insight.stalls.reader, "ring": insight.ring.descriptor}
        endings.write(self.socket_folder.descriptors(os.getpid()), where)

    def say_last_words(self) -> None:
        """Write the final counts, for complete sums. Runs on: the worker's main greenlet, when it has drained."""
        said = json.dumps(self._snapshot({}), separators=(",", ":"), default=str)
        path = self.socket_folder.last_words(os.getpid())
        try:
            path.with_suffix(".part").write_text(said)
            path.with_suffix(".part").replace(path)
        except OSError as exc:
            self.worker.log.warning("this worker's last counts are lost: %s", exc)

    def say_boot_failed(self, exc: BaseException) -> None:
        """The application could not be imported. Runs on: worker start-up."""
        endings.boot_failed(self.socket_folder, exc)

    def _handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            "snapshot": self._snapshot,
            "stacks": self._stacks,
            "everything": self._everything,
            "ring": self._ring,
        }

    def _snapshot(self, asked: dict[str, Any]) -> Any:
        serving = getattr(self.worker, "serving", None)  # of ours, once the application is imported
        if serving is None:
            return {"version": VERSION, "pid": os.getpid(), "booting": self._main_stack(importing)}
        return knowledge().snapshot(self.worker)

    def _stacks(self, asked: dict[str, Any]) -> Any:
        return knowledge().stacks(self.worker, str(asked["id"])) or {"gone": True}

    def _everything(self, asked: dict[str, Any]) -> Any:
        """A snapshot with the stacks of the longest requests in it, for a ticket."""
        said = self._snapshot(asked)
        for request in said.get("in_flight", [])[: int(asked.get("most", 50))]:
            request["stacks"] = self._stacks(request)
        said["main_stack"] = self._main_stack()
        return said

    def _ring(self, asked: dict[str, Any]) -> Any:
        insight = getattr(getattr(self.worker, "serving", None), "insight", None)
        return {} if insight is None else knowledge().remembered(insight)

    def _main_stack(self, look: Callable[[Any], stacks.Stack] = stacks.of_frame) -> list[str]:
        """Return the stack of the worker's main thread, the innermost call first."""
        stack = safepoint.MAIN.ask(look)
        if stack is None:
            stack = safepoint.stack_in_c(self.main_ident)
        return [f"{call.file}:{call.line} {call.function}" for call in stack]


def importing(frame: Any) -> stacks.Stack:
    """Where the import of the application is, also while it waits and the loop runs. Runs on: the main thread."""
    current = main = getcurrent()
    while main.parent is not None:
        main = main.parent
    return stacks.of_frame(frame if main is current else main.gr_frame)


def knowledge() -> Any:
    """Return the module that describes the worker; loaded with the first question."""
    return importlib.import_module("greenroom.insight.snapshot")
