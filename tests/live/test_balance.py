"""Connections are spread over the workers, and none waits behind a blocked one."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .conftest import Server, wait_until
from .raw import Client
from .test_drain import OURS

Start = Callable[..., Server]
FOUR = {**OURS, "WEB_CONCURRENCY": "4"}


def test_two_hundred_connections_are_spread_evenly(start: Start) -> None:
    server = start({**FOUR, "GREENROOM_KEEPALIVE_SECONDS": "60"}).wait_ready("/")
    wait_until(lambda: len(server.workers()) == 4, "all workers run")
    time.sleep(1.0)

    with ThreadPoolExecutor(50) as pool:
        clients = list(pool.map(lambda _: Client(server.port), range(200)))
        answers = list(pool.map(lambda client: client.get("/")[0], clients))
    for client in clients:
        client.close()

    per_worker = Counter(answers)
    assert len(per_worker) == 4
    assert max(per_worker.values()) / min(per_worker.values()) < 1.5, per_worker


def test_a_blocked_worker_holds_up_nobody_else(start: Start) -> None:
    server = start(FOUR).wait_ready("/")
    wait_until(lambda: len(server.workers()) == 4, "all workers run")
    time.sleep(1.0)
    with Client(server.port) as victim:
        victim.get("/")
        blocker = threading.Thread(target=victim.get, args=("/block/4",))
        blocker.start()
        took = []
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            began = time.monotonic()
            with Client(server.port) as client:
                client.get("/")
            took.append(time.monotonic() - began)
        blocker.join()

    slow = sum(seconds > 1.0 for seconds in took)
    assert slow < len(took) / 100, f"{slow} of {len(took)} waited over a second"
