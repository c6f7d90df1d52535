"""The cost of `greenroom load`'s generator and the accuracy of its moments, side by side with wrk in one run.

    python -m benchmarks.generator [--rates 5000,20000] [--seconds 3] [--rounds 3]

The server is a loop that answers each request at once, on a core of its own where there are two. wrk has no plan: it
sends as soon as it has an answer, so only its CPU time of each request can be compared.
"""

import argparse
import os
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from greenroom.load import arrivals, request, target
from greenroom.load.plan import Plan, run

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HOST = "127.0.0.1"


def answer_for_ever(listener: socket.socket) -> None:
    """Runs in a process of its own."""
    listener.setblocking(False)
    poller = select.epoll()
    poller.register(listener.fileno(), select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poller.register(client.fileno(), select.EPOLLIN)
            else:
                try:
                    is_open = clients[fd].recv(65_536)
                    if is_open:
                        clients[fd].send(ANSWER)
                except OSError:
                    is_open = b""
                if not is_open:
                    clients.pop(fd).close()


@contextmanager
def quick_server() -> Iterator[int]:
    """The port of one, until the end of the block."""
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        port = int(listener.getsockname()[1])
        pid = os.fork()
        if not pid:
            pin(-1)
            answer_for_ever(listener)
    try:
        yield port
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def pin(which: int) -> None:
    """To the first or the last of the cores that this process may use."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[which]})


def wrk(port: int, seconds: float) -> tuple[float, float] | None:
    """Requests a second, and microseconds of CPU for each; None where there is no wrk."""
    if shutil.which("wrk") is None:
        return None
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        ["wrk", "-t1", "-c20", f"-d{max(1, round(seconds))}s", f"http://{HOST}:{port}/"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60 + seconds,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"(\d+) requests in", said)
    assert found is not None, said
    count = int(found[1])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return count / max(1, round(seconds)), used / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="5000,20000")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    rows: dict[str, list[tuple[float, ...]]] = {}
    with quick_server() as port:
        pin(0)
        there = target.resolved(target.parse(f"http://{HOST}:{port}/"))
        for _ in range(options.rounds):
            for rate in rates:
                said = run(Plan(there, (request.Request(),), shape=arrivals.constant(rate, options.seconds)))
                made = said["generator"]
                rows.setdefault(f"greenroom load, {rate:g}/s", []).append(
                    (
                        said["good_per_second"],
                        made["cpu_us_per_request"],
                        made["cpu_ratio"],
                        made["late_p99_ms"],
                        made["read_late_p99_ms"],
                    )
                )
            if (found := wrk(port, options.seconds)) is not None:
                rows.setdefault("wrk, as fast as it can", []).append(found)
    for name, measured in rows.items():
        middle = [statistics.median(values) for values in zip(*measured, strict=True)]
        words = f"{name:28} {middle[0]:9.0f}/s  {middle[1]:6.1f} us of CPU a request"
        if len(middle) > 2:
            words += f"  {middle[2]:4.0%} of a core  late {middle[3]:.2f} ms, read late {middle[4]:.2f} ms at p99"
        print(words)


if __name__ == "__main__":
    main()
