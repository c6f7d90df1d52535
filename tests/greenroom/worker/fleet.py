"""A fleet of workers on an arbiter without processes, which do as they are told."""

import queue
import signal
from types import SimpleNamespace
from typing import Any

from gunicorn.errors import HaltServer

from greenroom.worker.balance import Line, Scoreboard, State
from greenroom.worker.recycle import Fleet


class FakeWorker:
    age = 0
    line: Line


class FakeArbiter:
    """gunicorn's arbiter as a Fleet uses it. Processes are objects that do as they are told."""

    WORKER_BOOT_ERROR = 3

    def __init__(self, board: Scoreboard, workers: int) -> None:
        self.board = board
        self.num_workers = workers
        self.cfg = SimpleNamespace(workers=workers, uid=0, gid=0)
        self.cfg.set = lambda name, value: setattr(self.cfg, name, value)
        self.WORKERS: dict[int, Any] = {}
        self.LISTENERS: list[object] = [object()]
        self.could_not_start: set[int] = set()
        self.SIG_QUEUE: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.worker_age = 0
        self.next_pid = 1
        self.killed: list[int] = []
        self.told: list[int] = []
        self.gone: set[int] = set()
        self.keeps_those_that_could_not_start = False  # until gunicorn 26

    def signal(self, number: int, frame: Any) -> None:
        raise AssertionError("the fleet has its own")

    manage_workers = signal

    def spawn_worker(self) -> None:
        worker = FakeWorker()
        worker.line = self.board.take(worker)
        self.WORKERS[self.next_pid] = worker
        self.next_pid += 1

    def kill_worker(self, pid: int, number: int) -> None:
        assert number == signal.SIGTERM
        self.killed.append(pid)
        self.WORKERS[pid].line.state = State.DRAINING

    def kill_workers(self, number: int) -> None:
        self.told.append(number)
        for pid in self.gone & set(self.WORKERS):
            del self.WORKERS[pid]

    def reap_workers(self) -> None:
        for pid in list(self.could_not_start):
            self.could_not_start.discard(pid)
            if not self.keeps_those_that_could_not_start:
                del self.WORKERS[pid]
            self.gone.add(pid)
            raise HaltServer("App failed to load.", 4)

    # Events that a test makes happen.
    def boot(self, *pids: int) -> None:
        for pid in pids:
            self.WORKERS[pid].line.state = State.SERVING

    def end(self, *pids: int) -> None:
        for pid in pids:
            del self.WORKERS[pid]

    def state(self, pid: int) -> float:
        return float(self.WORKERS[pid].line.state)

    def accepting(self) -> list[int]:
        return [pid for pid in self.WORKERS if self.state(pid) in (State.SERVING, State.RETIRING)]


class World:
    def __init__(self, workers: int) -> None:
        self.now = 100.0
        self.server = FakeArbiter(Scoreboard(), workers)
        self.fleet = Fleet(self.server, self.server.board, lambda: self.now)
        self.fleet.install()
        self.fleet.manage()
        self.server.boot(*self.server.WORKERS)
        self.fleet.manage()
