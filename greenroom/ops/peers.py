"""Other hosts of the same fleet: the verdict of each, asked for every few seconds, the worst first.

Each ops process asks all others directly, so there is nothing central to lose, and any host's page shows the fleet.
Peers are named by GREENROOM_OPS_PEERS:

    web-2:8001                 one host
    dns:greenroom-ops:8001     each address that the name stands for now (a headless service of Kubernetes, say)
    file:/etc/greenroom/peers  one host:port in each line, read anew each time

They must have the same GREENROOM_OPS_TOKEN. A host that does not answer is a row that says so.
"""

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..settings.addresses import Address, split_address
from .verdicts import BAD, LEVELS

logger = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
TIMEOUT_SECONDS = 3.0
MOST_PEERS = 100
LARGEST_VIEW_BYTES = 4 << 20
LONGEST_SENTENCE = 300
Ask = Callable[[Address, str], dict[str, Any]]


def addresses(peers: Sequence[str]) -> list[Address]:
    """Where they are now. Raises OSError when a file or a name can't be read."""
    found: dict[Address, None] = {}
    for peer in peers:
        if peer.startswith("file:"):
            lines = Path(peer.removeprefix("file:")).read_text().splitlines()
            named = [split_address(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        elif peer.startswith("dns:"):
            host, port = split_address(peer.removeprefix("dns:")) or ("", 0)
            named = [(str(at[0]), port) for *_, at in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        else:
            named = [split_address(peer)]
        found.update({address: None for address in named if address is not None})
    return list(found)[:MOST_PEERS]


def ask(address: Address, token: str) -> dict[str, Any]:
    """The verdict of one host. Raises OSError, ValueError or HTTPException."""
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/view", headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        body = response.read(LARGEST_VIEW_BYTES)
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(
            "it has another GREENROOM_OPS_TOKEN" if response.status == 401 else f"it answers {response.status}"
        )
    view = json.loads(body)
    verdict, total = view["verdict"], view["total"]
    return {
        "level": str(verdict["level"]),
        "cause": str(verdict["cause"]),
        "sentence": str(verdict["sentence"])[:LONGEST_SENTENCE],
        "requests_rate": float(total["requests_rate"]),
        "workers_serving": int(total["workers_serving"]),
        "workers": int(total["workers"]),
    }


class Peers:
    """Runs on: a thread of its own; `rows` may be read by any."""

    def __init__(self, peers: Sequence[str], token: str, *, ask: Ask = ask) -> None:
        self.peers = peers
        self.token = token
        self.rows: list[dict[str, Any]] = []
        self._ask = ask

    def start(self) -> None:
        if self.peers:
            threading.Thread(target=self._run, name="peers", daemon=True).start()

    def _run(self) -> None:
        with ThreadPoolExecutor(8, "peers") as pool:
            while True:
                began = time.monotonic()
                try:
                    self.look(pool)
                except Exception:
                    # Whatever error one round meets, the next one comes, and the log tells why rows stand still.
                    logger.exception("asking the other hosts failed")
                time.sleep(max(0.5, EVERY_SECONDS - (time.monotonic() - began)))

    def look(self, pool: ThreadPoolExecutor) -> None:
        rows: list[dict[str, Any]] = []
        found: list[Address] = []
        for peer in self.peers:
            try:
                found += [address for address in addresses([peer]) if address not in found]
            except OSError as exc:
                rows.append(_silent(peer, f"{peer} can't be looked up: {exc}"))
        rows += pool.map(self._row, found[:MOST_PEERS])
        self.rows = sorted(rows, key=lambda row: (LEVELS.index(row["level"]), row["host"]))

    def _row(self, address: Address) -> dict[str, Any]:
        host, port = address
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            said = self._ask(address, self.token)
            if said["level"] not in LEVELS:
                raise ValueError("it is another program")
        except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as exc:
            words = f"the ops page of {name} does not answer: {exc}"
            return {**_silent(name, words), "url": f"http://{name}/"}
        return {"host": name, "url": f"http://{name}/", **said}


def _silent(name: str, words: str) -> dict[str, Any]:
    return {
        "host": name,
        "url": "",
        "level": BAD,
        "cause": "silent",
        "sentence": words,
        "requests_rate": 0.0,
        "workers_serving": 0,
        "workers": 0,
    }
