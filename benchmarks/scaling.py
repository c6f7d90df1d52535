"""What grows with the workers of a server, on one core: `python -m benchmarks scaling`, arithmetic for 1 to 64 of them.

    a turn        how long a worker looks at the others' lines of the scoreboard when a connection waits; each idle one
                  of them does so
    scoreboard    how long the ops process takes to read all lines, once a second
    snapshots     bytes that the workers answer it once a second, how long it takes to read them and add them up
    metrics       bytes of /metrics, which has one row for a route whatever the number of workers

The workers are lines and answers of the size that real ones have, in this process; what they do to each other's caches
is not in it.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import reduce
from typing import Any

from greenroom import clock
from greenroom.insight.account import STATES, Account
from greenroom.insight.routes import LE, MOST_ROUTES, Routes
from greenroom.ops import counters
from greenroom.ops.collect import Moment
from greenroom.ops.metrics import exposition
from greenroom.worker.balance import TOTALS, Scoreboard, State, Turn

WORKERS = (1, 4, 16, 64)
ROUTES = (10, MOST_ROUTES)
# Lengths of requests, in seconds: each route has some of each.
LENGTHS = (0.001, 0.004, 0.02, 0.09, 0.4)


class Owner:
    """Has a line of the scoreboard for as long as it lives."""


def board_of(workers: int) -> tuple[Scoreboard, list[Owner], Turn]:
    """As in a server in which the first worker looks whether it is its turn."""
    board, owners = Scoreboard(workers + 1), [Owner() for _ in range(workers)]
    lines = [board.take(owner) for owner in owners]
    for line in lines:
        line.pid, line.state, line.expected = 1, State.SERVING, 10.0
    return board, owners, Turn(board, lines[0])


def beat(board: Scoreboard) -> None:
    for line in board:
        line.heartbeat = clock.now()


def snapshot(routes: int) -> dict[str, Any]:
    """The part of a worker's answer that grows with its routes."""
    table = Routes()
    for number in range(routes):
        for length in LENGTHS:
            account = Account(0.0)
            account.route, account.ended, account.has_waited = f"/api/v1/things/<int:id>/parts/{number}", length, True
            account.seconds = [length / len(STATES)] * len(STATES)
            table.add(account, 200)
    return {
        "states": list(STATES),
        "le": [*LE, None],
        "routes": {pattern: route.as_dict() for pattern, route in table.by_pattern.items()},
    }


def seconds_of(work: Callable[[], object], least_seconds: float = 0.05) -> float:
    """Of the thread's time, the best of three."""
    best = float("inf")
    for _ in range(3):
        count, began = 0, time.thread_time()
        while (took := time.thread_time() - began) < least_seconds:
            work()
            count += 1
        best = min(best, took / count)
    return best


def sums(texts: list[bytes]) -> dict[str, Any]:
    return reduce(counters.add, (counters.countable(json.loads(text)) for text in texts), counters.empty())


def metrics_bytes(added: dict[str, Any]) -> int:
    none = dict.fromkeys(TOTALS, 0.0)
    moment = Moment(
        now=0.0, at=0.0, totals=none, workers=[], sums=added, before=added, totals_before=none, window_seconds=1.0,
        history=[], events=[], machine_cpu_ratio=0.0, cores=1,
    )  # fmt: skip
    return len(exposition(moment).encode())


def main() -> int:
    print(f"{'workers':>8}{'a turn':>12}{'scoreboard':>14}")
    for workers in WORKERS:
        board, owners, turn = board_of(workers)
        beat(board)
        looks = seconds_of(lambda board=board, turn=turn: (beat(board), turn.has_come()))  # type: ignore[misc]
        looks -= seconds_of(lambda board=board: beat(board))  # type: ignore[misc]
        reads = seconds_of(board.read)
        print(f"{workers:>8}{looks * 1e6:>9.1f} µs{reads * 1e6:>11.0f} µs", flush=True)
        del owners
    print(f"{'workers':>8}{'routes':>8}{'snapshots':>12}{'added up in':>13}{'metrics':>11}")
    for routes in ROUTES:
        text = json.dumps(snapshot(routes)).encode()
        for workers in WORKERS:
            texts = [text] * workers
            began = time.thread_time()
            added = sums(texts)
            took = time.thread_time() - began
            size = f"{len(text) * workers / 1e6:.2f} MB"
            print(
                f"{workers:>8}{routes:>8}{size:>12}{took * 1000:>10.1f} ms{metrics_bytes(added) / 1000:>8.0f} KB",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
