"""A server of the doctor's: the application on a free port under one worker of some kind."""

import contextlib
import http.client
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..finding import uri
from ..ops.worker_client import ask
from ..serving_command import OWN_CONFIGURATION
from .scratch import Child, Scratch

CONFIGURATION = Path(__file__).with_name("inside") / "gunicorn_conf.py"
HEARTBEAT = "/.greenroom-doctor"
NO_ANSWER = "no answer in time"
# A stall of this length is looked at; what is said of it is said in `judging`.
STALL_MILLISECONDS = 20
ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    status: int
    seconds: float
    body: bytes = b""
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 400


class Server:
    """Started by `start`; `is_up` says whether it serves."""

    def __init__(self, scratch: Scratch, app: str, kind: str, own_configuration: Path | None) -> None:
        self.scratch, self.app, self.kind = scratch, app, kind
        self.own_configuration = own_configuration
        self.child: Child | None = None
        self.port = 0
        self.started_at = 0.0
        self.headers: Mapping[str, str] = {}  # of all requests: those of a login

    def start(self, seconds: float) -> bool:
        """Whether it serves within `seconds`."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = int(listener.getsockname()[1])
            listener.listen(512)
            os.set_inheritable(listener.fileno(), True)
            more = {
                "_GREENROOM_DOCTOR_KIND": self.kind,
                "GREENROOM_OPS_BIND": "off",
                "GREENROOM_RECORDINGS_KEPT": "0",
                "GREENROOM_STALL_THRESHOLD_MILLISECONDS": str(STALL_MILLISECONDS),
                "GREENROOM_ADMISSION": "off",
                "GREENROOM_ACCESS_LOG": "no",
                "GREENROOM_WORKER_CLASS": "greenroom",
                "GREENROOM_SERVER_TIMING": "off",
                "WEB_CONCURRENCY": "1",
            }
            if self.own_configuration is not None and self.kind == "greenroom":
                more[OWN_CONFIGURATION] = str(self.own_configuration.resolve())
            command = [
                *(sys.executable, "-m", "gunicorn", "-c", str(CONFIGURATION), "-w", "1"),
                *("-b", f"fd://{listener.fileno()}", uri(self.app) if self.kind == "greenroom" else plain(self.app)),
            ]
            self.started_at = time.monotonic()
            self.child = self.scratch.start(
                command, more, pass_fds=[listener.fileno()], is_patched_first=self.kind == "greenroom"
            )
        return self.waits_until_it_serves(seconds)

    def waits_until_it_serves(self, seconds: float) -> bool:
        """Whether it does so within `seconds`."""
        assert self.child is not None
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.child.is_running():
            if self.get(HEARTBEAT, min(2.0, max(0.1, until - time.monotonic()))).status == 200:
                return True
            time.sleep(0.05)
        return False

    def get(
        self,
        path: str,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """One request on a connection of its own. Status 0: no answer, `error` says why."""
        began = time.perf_counter()
        sent = {"Connection": "close", **({} if path == HEARTBEAT else self.headers), **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            read = _read(response, began + timeout_seconds)
            return Answer(
                response.status,
                time.perf_counter() - began,
                read,
                "",
                {name.lower(): value for name, value in response.getheaders()},
            )
        except TimeoutError:
            return Answer(0, time.perf_counter() - began, error=NO_ANSWER)
        except (OSError, http.client.HTTPException) as exc:
            return Answer(0, time.perf_counter() - began, error=type(exc).__name__)
        finally:
            connection.close()

    def ask(self, what: str, **more: Any) -> Any:
        """Return the worker's answer over its own socket; {} when it does not answer."""
        for path in sorted((self.scratch.folder / "sockets").glob("*.sock"), key=_changed, reverse=True):
            answer = ask(path, {"ask": what, **more}, ANSWER_SECONDS)
            if isinstance(answer, dict) and "error" not in answer:
                return answer
        return {}

    def is_up(self) -> bool:
        return self.child is not None and self.child.is_running()

    def output(self, since: int = 0) -> str:
        return self.child.output(since) if self.child is not None else ""

    def written(self) -> int:
        """Bytes of output until now."""
        return self.child.written if self.child is not None else 0

    def stop(self) -> None:
        if self.child is not None:
            self.child.stop()
        for path in (self.scratch.folder / "sockets").iterdir():
            with contextlib.suppress(OSError):
                path.unlink()


def _read(response: http.client.HTTPResponse, until: float, most: int = 300_000) -> bytes:
    """The body, as far as it comes in time: a stream has no end."""
    read = b""
    with contextlib.suppress(TimeoutError):
        while len(read) < most and time.perf_counter() < until and (piece := response.read1(65_536)):
            read += piece
    return read


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def plain(app: str) -> str:
    return uri(app)
