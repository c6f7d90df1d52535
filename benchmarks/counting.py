"""The process that benchmarks/steps.py asks: it serves an application, and counts its own steps meanwhile.

python -m benchmarks.counting APP yes|no WARM_UP REQUESTS         yes: with insight
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from greenroom.patching import patch
from greenroom.settings import Settings

HOST = "127.0.0.1"
LONG_SECONDS = 3600.0
WARM_UP, REQUESTS = int(sys.argv[3]), int(sys.argv[4])
# Counting takes its time, and that is no stall.
settings = Settings(insight=sys.argv[2] == "yes", stall_threshold_milliseconds=10_000)
patch(settings)

import socket  # noqa: E402  # patched by now, as all that follows
import threading  # noqa: E402

from gevent.event import Event  # noqa: E402
from greenlet import gettrace, settrace  # noqa: E402
from gunicorn.config import Config  # noqa: E402
from gunicorn.glogging import Logger  # noqa: E402
from gunicorn.workers.ggevent import GeventWorker  # noqa: E402

from greenroom.insight.observer import Insight  # noqa: E402
from greenroom.waits import parking  # noqa: E402
from greenroom.worker.balance import Scoreboard  # noqa: E402
from greenroom.worker.cycle import RequestCycle  # noqa: E402
from greenroom.worker.listener import Listener  # noqa: E402
from greenroom.worker.serving import Serving  # noqa: E402


class Worker(GeventWorker):
    """A worker as connections see it, without a process of its own."""

    def __init__(self, application: Any) -> None:
        self.cfg = Config()
        self.log = Logger(self.cfg)
        self.wsgi = application
        self.alive = True

    def request_started(self) -> None:
        pass


class Counter:
    """Stands before the application; from one call of it to the next is a request."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.steps = self.switches = 0
        self.calls: list[tuple[int, int]] = []
        self.is_done = Event()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.calls.append((self.steps, self.switches))
        if len(self.calls) > WARM_UP + REQUESTS:
            self.is_done.set()
        return self.application(environ, start_response)

    def step(self, frame: Any, event: str, _: Any) -> Any:
        """Runs on: everywhere in the loop's thread, as sys.settrace's function."""
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.steps += 1
        return self.step

    def run(self, cycle: RequestCycle, *arguments: Any) -> None:
        """In place of RequestCycle.run: tracing is each greenlet's own."""
        sys.settrace(self.step)
        plain_run(cycle, *arguments)

    def count_switches(self) -> None:
        told = gettrace()

        def switched(event: str, switch: Any) -> None:
            self.switches += 1
            if told is not None:
                told(event, switch)

        settrace(switched)

    def result(self) -> dict[str, float]:
        counted = self.calls[WARM_UP:]
        pairs = list(zip(counted, counted[1:], strict=False))
        return {
            "steps": statistics.median(after[0] - before[0] for before, after in pairs),
            "switches": statistics.median(after[1] - before[1] for before, after in pairs),
        }


plain_run = RequestCycle.run


def serve_and_count() -> None:
    parking.TRIES_SECONDS = LONG_SECONDS  # else callers give way, as counting takes its time
    module, _, name = sys.argv[1].partition(":")
    counter = Counter(getattr(import_module(module), name))
    RequestCycle.run = lambda cycle, *arguments: counter.run(cycle, *arguments)  # type: ignore[method-assign]
    worker = Worker(counter)
    serving = Serving(worker, settings, lambda: False)
    sock = socket.create_server((HOST, 0))
    sock.setblocking(False)
    listener = Listener(serving, sock, Scoreboard(2).take(worker), None)
    serving.start()
    if settings.insight:
        serving.insight = Insight(serving, settings)
        serving.insight.start()
    counter.count_switches()
    listener.start()
    threading.settrace(counter.step)
    serving.loop.run_callback(sys.settrace, counter.step)
    print(sock.getsockname()[1], flush=True)
    counter.is_done.wait()
    sys.settrace(None)
    settrace(None)
    print(json.dumps(counter.result()), flush=True)
    os._exit(0)  # in the middle of a request, which may not be able to end any more: its executor refuses jobs


if __name__ == "__main__":
    serve_and_count()
