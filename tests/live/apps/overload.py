"""An application that needs a given time of the CPU and waits a given time. No framework: the server is measured.

/work?cpu=10&wait=50   computes for 10 ms, then waits 50 ms
/late?cpu=10&wait=50   waits first
/parts?cpu=10&wait=50  half of each, twice
/mixed?wait=20         2, 10, 30 ms in turn; every second one waits between its halves
/healthz, /important   answer at once
"""

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

BODY = b"done\n"
MIXED_SECONDS = (0.002, 0.01, 0.03)
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]

numbers = itertools.count()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = parse_qs(environ["QUERY_STRING"])
    cpu_seconds, wait_seconds = (float(query.get(name, ["0"])[0]) / 1000 for name in ("cpu", "wait"))
    path = environ["PATH_INFO"]
    if path == "/mixed":
        number = next(numbers)
        cpu_seconds = MIXED_SECONDS[number % len(MIXED_SECONDS)]
        compute(cpu_seconds / 2)
        if number % 2:
            time.sleep(wait_seconds)
        compute(cpu_seconds / 2)
    elif path == "/late":
        time.sleep(wait_seconds)
        compute(cpu_seconds)
    elif path == "/parts":
        for _ in range(2):
            compute(cpu_seconds / 2)
            time.sleep(wait_seconds / 2)
    else:
        compute(cpu_seconds)
        if wait_seconds:
            time.sleep(wait_seconds)
    start_response("200 OK", HEADERS)
    return [BODY]


def compute(seconds: float) -> None:
    """Use the CPU for so long, whoever else uses it meanwhile."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
