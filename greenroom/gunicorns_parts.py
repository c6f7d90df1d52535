"""gunicorn's arbiter, its log and its workers, as far as we use them: gunicorn has no types of its own.

`cfg` stays without a type: gunicorn makes its attributes from its settings when it runs.
"""

from collections.abc import Callable, MutableMapping, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import IO, Any, Protocol

Signal = Callable[[int, FrameType | None], None]


class Log(Protocol):
    error_log: Any

    def debug(self, msg: str, *args: object) -> None: ...

    def info(self, msg: str, *args: object) -> None: ...

    def warning(self, msg: str, *args: object) -> None: ...

    def error(self, msg: str, *args: object) -> None: ...

    def exception(self, msg: str, *args: object) -> None: ...


class Worker(Protocol):
    """A worker of any class. `stacks_file` is ours, where there is one."""

    pid: int
    age: int
    nr: int
    alive: bool
    cfg: Any
    log: Log
    wsgi: Callable[..., Any]
    settings: Any
    worker_server: Any
    stacks_file: IO[bytes]


class GunicornApplication(Protocol):
    cfg: Any
    reload: Callable[[], None]


class Arbiter(Protocol):
    pid: int
    cfg: Any
    log: Log
    app: GunicornApplication
    address: Sequence[Any]
    num_workers: int
    worker_age: int
    LISTENERS: Sequence[Any]
    SIG_QUEUE: SimpleQueue[int]
    START_CTX: dict[Any, Any]
    WORKERS: MutableMapping[int, Worker]
    WORKER_BOOT_ERROR: int
    reap_workers: Callable[[], None]
    manage_workers: Callable[[], None]
    signal: Signal

    def init_signals(self) -> None: ...

    def spawn_worker(self) -> int: ...

    def kill_worker(self, pid: int, sig: int) -> None: ...
