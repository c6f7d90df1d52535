"""A real server with its ops page."""

import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from ..conftest import Server, free_port
from ..staging import TROUBLE, Ops

Start = Callable[..., Server]


class Watched:
    """A server with its ops page."""

    def __init__(self, start: Start, **environ: str) -> None:
        self.port = int(environ.pop("PORT", free_port()))
        settings = {
            **TROUBLE,
            "WEB_CONCURRENCY": "1",
            "GREENROOM_OPS_BIND": f"127.0.0.1:{self.port}",
            "GREENROOM_RECORDINGS_KEPT": "0",
            **environ,
        }
        # The script and not `python -m gunicorn`: what USR2 makes of the latter takes gunicorn's `http` for Python's.
        self.server = start(settings, [str(Path(sys.executable).with_name("gunicorn"))])
        self.ops = Ops(self.port, environ.get("GREENROOM_OPS_TOKEN", ""))

    def wait_ready(self) -> "Watched":
        self.server.wait_ready("/")
        self.ops.wait_for(lambda view: view["total"]["workers_serving"], "a worker is seen")
        return self

    def processes(self) -> list[psutil.Process]:
        """The ops process: the arbiter's child that serves it."""
        found = []
        for child in psutil.Process(self.server.process.pid).children():
            try:
                if "--serve" in child.cmdline():
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found
