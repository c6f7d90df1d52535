"""An application that waits a little, computes a little, and tells which worker answered.

/        waits and computes; a POST reads its body first
/block   lets nobody else run in its worker for 4 s, as a C library does that knows nothing of greenlets
/healthz answers at once
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

WAIT_SECONDS = float(os.environ.get("PID_WAIT_SECONDS", "0.005"))
COMPUTE_SECONDS = float(os.environ.get("PID_COMPUTE_SECONDS", "0.0003"))
BOOT_SECONDS = float(os.environ.get("PID_BOOT_SECONDS", "0.5"))
BLOCK_SECONDS = 4

time.sleep(BOOT_SECONDS)  # what importing a real application costs


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":
        while environ["wsgi.input"].read(65_536):
            pass
    if environ["PATH_INFO"] == "/block":
        signal.sigtimedwait((), BLOCK_SECONDS)
    elif environ["PATH_INFO"] != "/healthz":
        time.sleep(WAIT_SECONDS)
        until = time.thread_time() + COMPUTE_SECONDS
        while time.thread_time() < until:
            pass
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
