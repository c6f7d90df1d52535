"""The application as it would be served: `greenroom serve`, on a free port of the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from ..load.units import LoadError
from ..ops.client import Client, OpsError

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
LOOK_SECONDS = 0.1
LOG_LINES = 12


@dataclass(frozen=True)
class Served:
    origin: str
    ops: Client


@contextmanager
def served(app: str, settings: Mapping[str, str]) -> Iterator[Served]:
    """Serve with these settings over the environment's, until the end of the block. Raises LoadError."""
    port, ops_port = _free_port(), _free_port()
    environ = {
        **os.environ,
        **settings,
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}",
        "GREENROOM_OPS_TOKEN": "",
        "GREENROOM_INSIGHT": "yes",
        "GREENROOM_WORKER_CLASS": "greenroom",
        "GREENROOM_RECORDINGS_KEPT": "0",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "greenroom", "serve", app], env=environ, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            client = Client(("127.0.0.1", ops_port), "")
            _wait_until_it_serves(process, client, log)
            yield Served(f"http://127.0.0.1:{port}", client)
        finally:
            _stop(process)


def _wait_until_it_serves(process: "subprocess.Popen[bytes]", client: Client, log: IO[bytes]) -> None:
    give_up_at = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise LoadError(f"the application could not be served:\n{_tail(log)}")
        try:
            total = client.view()["total"]
            if total["workers_serving"] and total["workers_serving"] == total["workers"]:
                return
        except (OpsError, KeyError):
            pass  # not yet
        time.sleep(LOOK_SECONDS)
    raise LoadError(f"the application was not ready within {READY_SECONDS:g} s:\n{_tail(log)}")


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
