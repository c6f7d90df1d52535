"""How many steps of Python's interpreter a request takes: `python -m benchmarks steps [--against LAST.json]`.

A step is a bytecode instruction of the worker, the framework or the application; C code counts as the instruction that
calls it. The same code takes the same number on any machine, however busy it is, so two percent more are a finding:
`--against` fails then. It is no measure between servers, or between versions of Python.

    a worker's Serving in a process of its own  <── one connection, one request after the other ──  this process
    sys.settrace in the hub, in each request, in each thread: from one call of the application to the next

greenlet calls insight at each switch with tracing off: those steps are not counted, but the switches are. What is done
for many requests at once, or by timers, is in none of the median requests.
"""

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path

from .machine import ROOT
from .measuring import ending
from .servers import HOST, ServerFailed, clean_environment

APPS = {
    "hello": "benchmarks.apps.hello:wsgi",
    "dict": "benchmarks.apps.flask_dict:app",
    "threads": "benchmarks.apps.threads:app",
    "waiting threads": "benchmarks.apps.threads:waiting",
}
WITH, WITHOUT = "with insight", "without"
WARM_UP, REQUESTS = 30, 50
MOST_DEARER_RATIO = 1.02
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
TIMEOUT_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks steps", description=(__doc__ or "").partition(": `")[0])
    parser.add_argument("--against", type=Path, help="an earlier result: fail where a request takes more steps now")
    parser.add_argument("--output", type=Path, help="a file for the result")
    options = parser.parse_args()
    return ending(lambda: measure(options.against, options.output))


def measure(against: Path | None, output: Path | None) -> bool:
    """Count, print, write and compare; whether nothing takes more than it did."""
    before = {} if against is None else read(against)
    found = {f"{route}, {insight}": counted(route, insight) for route in APPS for insight in (WITH, WITHOUT)}
    print(f"{'a request':24}{'steps':>9}{'switches':>10}")
    for name, numbers in found.items():
        print(f"{name:24}{numbers['steps']:>9,.0f}{numbers['switches']:>10.0f}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"python": python(), "requests": found}, indent=1) + "\n")
    dearer = worse(before, found)
    for sentence in dearer:
        print(sentence)
    return not dearer


def python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def read(path: Path) -> dict[str, dict[str, float]]:
    """An earlier result; empty where it is of another version of Python. Raises ServerFailed where it is none."""
    try:
        document = json.loads(path.read_text())
        return dict(document["requests"]) if document["python"] == python() else {}
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise ServerFailed(f"--against {path} is no result of `python -m benchmarks steps`: {exc}") from exc


def worse(before: dict[str, dict[str, float]], now: dict[str, dict[str, float]]) -> list[str]:
    """A sentence for each number that is larger than it was, by more than can be chance."""
    return [
        f"{name}: {before[name][what]:,.0f} {what} before, {number:,.0f} now: dearer"
        for name, numbers in now.items()
        for what, number in numbers.items()
        if name in before and number > MOST_DEARER_RATIO * before[name][what]
    ]


def counted(route: str, insight: str) -> dict[str, float]:
    """Ask a process that counts, until it has seen enough. Raises ServerFailed."""
    has_insight = "yes" if insight == WITH else "no"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.counting", APPS[route], has_insight, str(WARM_UP), str(REQUESTS)],
        cwd=ROOT,
        env={**clean_environment(), "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline()
        if port:
            with socket.create_connection((HOST, int(port)), TIMEOUT_SECONDS) as client:
                for _ in range(WARM_UP + REQUESTS + 1):
                    client.sendall(ASK)
                    if not client.recv(65_536):
                        break
        told, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        if process.returncode:
            raise ServerFailed(f"the steps of {route} can't be counted:\n{errors}")
        return dict(json.loads(told))
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ServerFailed(f"the steps of {route} can't be counted: {exc}") from exc
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    sys.exit(main())
