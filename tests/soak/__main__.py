"""`python -m tests.soak [--for SECONDS]`: prints its figures; exit status 1 where anything was wrong."""

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from . import judging, upstream
from .clients import Clients

ROOT = Path(__file__).resolve().parents[2]
RELOAD_SECONDS = 10.0
DESCRIPTORS = 256
# The last part goes by without reloads: memory is compared within one worker's life.
STEADY_SHARE = 0.3
READY_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def start_server(port: int, url: str, folder: Path) -> "subprocess.Popen[bytes]":
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
    environ |= {
        "PYTHONUNBUFFERED": "1",
        "WSGI_APP": "tests.soak.app:app",
        "WEB_CONCURRENCY": "2",
        "SOAK_UPSTREAM": url,
        "SOAK_FOLDER": str(folder),
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{free_port()}",
        "GREENROOM_COMPANION": "no",
        "GREENROOM_RECORDINGS_PATH": str(folder / "recordings"),
        "GREENROOM_STALL_THRESHOLD_MILLISECONDS": "20",
        "GREENROOM_CLEAN_UP_SECONDS": "2",
        "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "8",
    }
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn"],
            cwd=ROOT,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=few_descriptors,
        )


def wait_ready(port: int) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def soak(seconds: float, folder: Path) -> tuple[dict[str, object], list[str]]:
    """The figures, and what was wrong."""
    port = free_port()
    server = start_server(port, upstream.start(), folder)
    clients = Clients(port)
    try:
        wait_ready(port)
        for kind, many in (
            (clients.user, 12),
            (clients.other, 4),
            (clients.leaver, 2),
            (clients.late, 2),
            (clients.slow_sender, 2),
            (clients.slow_reader, 2),
            (clients.hostile, 2),
        ):
            clients.start(kind, many)
        began = time.monotonic()
        reloads = 0
        while time.monotonic() - began < seconds * (1 - STEADY_SHARE):
            time.sleep(RELOAD_SECONDS)
            server.send_signal(signal.SIGHUP)
            reloads += 1
        time.sleep(max(RELOAD_SECONDS, seconds * STEADY_SHARE / 3))  # the newest workers warm up
        before = judging.resident_bytes(server.pid)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        after = judging.resident_bytes(server.pid)
        clients.stop()
        time.sleep(4.0)  # the grace of what was cut
        idle = judging.idle_cpu(server.pid)
        began = time.monotonic()
        server.terminate()
        code = server.wait(60)
        stopped_in = time.monotonic() - began
    finally:
        clients.is_over.set()
        if server.poll() is None:
            server.kill()
            server.wait()
    log = (folder / "log").read_text(errors="replace")
    errors, deaths, stalls = judging.tracebacks(log), judging.deaths(log), judging.long_stalls(folder)
    grown = {name: after[name] - before[name] for name in after}
    figures = {
        "seconds": seconds,
        "reloads": reloads,
        "answers": dict(sorted(clients.counts.items())),
        "wrong nonces": len(clients.wrong),
        "unanswered": len(clients.unanswered),
        "resident megabytes": {name: round(size / 1e6, 1) for name, size in after.items()},
        "grown megabytes": {name: round(size / 1e6, 1) for name, size in grown.items()},
        "idle cpu": round(idle, 3),
        "stopped in seconds": round(stopped_in, 1),
        "log lines": log.count("\n"),
        "stalls told of": log.count("stall: "),
        "stalls too long": len(stalls),
    }
    problems = [f"wrong nonce: {line}" for line in clients.wrong[:10]]
    problems += [f"no answer: {line}" for line in clients.unanswered[:10]]
    problems += [f"traceback, {count} times: {error}" for error, count in errors.most_common(10)]
    problems += [f"died: {line}" for line in deaths[:10]]
    problems += [f"stalled: {line}" for line in stalls[:10]]
    problems += [f"{name} grew by {size} bytes" for name, size in grown.items() if size > judging.MOST_GROWTH_BYTES]
    if idle > judging.MOST_IDLE_CPU:
        problems.append(f"an idle worker takes {idle:.2f} of a core")
    if code != 0:
        problems.append(f"the server ended with {code}")
    return figures, problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--for", dest="seconds", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, help="for the log; else one that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures, problems = soak(options.seconds, folder)
    print(json.dumps(figures, indent=1))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
