"""gunicorn's arbiter, its log and its workers, as far as we use them: gunicorn has no types of its own."""

import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import IO, TYPE_CHECKING, Protocol
from wsgiref.types import WSGIApplication

if TYPE_CHECKING:
    from .ops.worker_server import WorkerServer
    from .settings import Settings

Signal = Callable[[int, FrameType | None], None]
Address = tuple[str, int] | str  # of an internet socket, or the path of a UNIX socket


class Config(Protocol):
    """Its settings. gunicorn makes the attributes when it runs."""

    # Of the server, and of its processes.
    worker_class_str: str
    workers: int
    uid: int
    gid: int
    worker_tmp_dir: str | None
    errorlog: str | None
    loglevel: str
    certfile: str | None
    keyfile: str | None
    when_ready: Callable[["Arbiter"], None]
    # Of connections and requests.
    keepalive: int
    worker_connections: int
    pre_request: Callable[..., object]
    post_request: Callable[..., object]
    is_ssl: bool
    suppress_ragged_eofs: bool
    secure_scheme_headers: Mapping[str, str]
    limit_request_line: int
    limit_request_fields: int
    limit_request_field_size: int
    casefold_http_method: bool
    strip_header_spaces: bool
    permit_unconventional_http_method: bool
    http2_cleartext: str
    http2_max_concurrent_streams: int
    http2_initial_window_size: int

    def set(self, name: str, value: object) -> None: ...


class Log(Protocol):
    error_log: logging.Logger

    def debug(self, msg: str, *args: object) -> None: ...

    def info(self, msg: str, *args: object) -> None: ...

    def warning(self, msg: str, *args: object) -> None: ...

    def error(self, msg: str, *args: object, exc_info: BaseException | None = None) -> None: ...

    def exception(self, msg: str, *args: object) -> None: ...


class Worker(Protocol):
    """A worker of any class. `stacks_file` is ours, where there is one."""

    pid: int
    age: int
    nr: int
    alive: bool
    cfg: Config
    log: Log
    wsgi: WSGIApplication
    settings: "Settings"
    worker_server: "WorkerServer"
    stacks_file: IO[bytes]


class GunicornApplication(Protocol):
    cfg: Config
    reload: Callable[[], None]


class Arbiter(Protocol):
    pid: int
    cfg: Config
    log: Log
    app: GunicornApplication
    address: Sequence[Address]
    num_workers: int
    worker_age: int
    LISTENERS: Sequence[object]
    SIG_QUEUE: SimpleQueue[int]
    WORKERS: MutableMapping[int, Worker]
    WORKER_BOOT_ERROR: int
    reap_workers: Callable[[], None]
    manage_workers: Callable[[], None]
    signal: Signal

    def init_signals(self) -> None: ...

    def spawn_worker(self) -> int: ...

    def kill_worker(self, pid: int, sig: int) -> None: ...
