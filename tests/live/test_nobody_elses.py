"""200 users with nonces, at once, through a worker's header caches, greenlets, contexts, threads and upstream pools.

Some hang up, reset, send half a head or slowly, or have their budget cut; the upstream resets, cuts and says too much.
"""

import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.greenroom.waits.http.upstream import Received, Upstream, answer, reset

from .conftest import LONG_WAIT_SECONDS, Server

USERS = 200
CALLS = 5
FAULTS = ("none", "none", "none", "none", "hang up", "reset", "half a head", "slow", "budget")


def faulty(sock: socket.socket, request: Received) -> bool:
    nonce = request.target.removeprefix("/")
    assert request.fields["x-nonce"] == nonce
    kind = random.Random(nonce + str(request.connection)).randrange(12)
    whole = answer(nonce.encode())
    if kind == 0:
        reset(sock)
        return False
    if kind == 1:
        sock.sendall(whole[:-1])
        return False
    sock.sendall(whole + answer(b"somebody's") if kind == 2 else whole)
    return True


class AnyPath(dict[str, object]):
    def get(self, key: str, default: object = None) -> object:
        return faulty


@pytest.fixture
def server(start: Callable[..., Server]) -> Iterator[Server]:
    upstream = Upstream()
    upstream.scripts = AnyPath()  # type: ignore[assignment]
    yield start(
        {
            "WSGI_APP": "tests.live.apps.nonces:app",
            "WEB_CONCURRENCY": "1",
            "GREENROOM_WORKER_CLASS": "greenroom",
            "GREENROOM_COMPANION": "no",
            "GREENROOM_QUEUE_LIMIT_REQUESTS": "1000",
            "UPSTREAM_URL": upstream.url,
        }
    ).wait_ready("/ready")
    upstream.close()


class User:
    def __init__(self, number: int, port: int, seen: Counter[str]) -> None:
        self.number = number
        self.port = port
        self.seen = seen
        self.random = random.Random(number)
        self.sock: socket.socket | None = None
        self.cookie = ""
        self.history: list[str] = []

    def run(self) -> None:
        for call in range(CALLS):
            self.call(f"{self.number}n{call}")
        self.leave()

    def leave(self) -> None:
        if self.sock is not None:
            self.sock.close()
        self.sock = None

    def call(self, nonce: str) -> None:
        fault = self.random.choice(FAULTS)
        sock = self.sock = self.sock or socket.create_connection(("127.0.0.1", self.port), LONG_WAIT_SECONDS)
        ms = self.random.choice((0, 5, 50))
        fields = [f"X-Nonce: {nonce}", f"X-Of-{self.number}: {nonce}", f"Content-Length: {len(nonce)}", "Host: a.test"]
        fields += [self.cookie] if self.cookie else []
        fields += ["X-Request-Timeout-Ms: 30"] if fault == "budget" else []
        self.random.shuffle(fields)
        head = "\r\n".join([f"POST /echo/{nonce}?ms={ms}&of={nonce} HTTP/1.1", *fields, "", nonce]).encode()
        if fault == "half a head":
            sock.sendall(head[: len(head) // 2])
            self.leave()
            return
        if fault == "slow":
            for at in range(0, len(head), 40):
                sock.sendall(head[at : at + 40])
                time.sleep(0.002)  # not for something to happen: the pieces shall come one by one
        else:
            sock.sendall(head)
        if fault == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if fault in ("hang up", "reset"):
            self.leave()
            return
        status, answer_fields, body = received(sock)
        self.seen[f"{fault}: {status}"] += 1
        if answer_fields.get("connection") == "close":
            self.leave()
        if status == 200:
            self.check(nonce, answer_fields, json.loads(body))

    def check(self, nonce: str, fields: dict[str, str], found: dict[str, object]) -> None:
        assert fields["x-nonce"] == nonce
        assert found["before"] == ["", "", "", nonce]
        assert found["after"] == [nonce] * 4
        assert found["body"] == nonce
        assert str(found["query"]).endswith(f"of={nonce}")
        upstream = found["upstream"]
        assert isinstance(upstream, list)
        assert {each for each in upstream if not each.startswith("failed")} <= {nonce}
        assert len(upstream) == 6
        own = found["fields"]
        assert isinstance(own, dict)
        assert {name for name in own if name.startswith("X-Of")} == {f"X-Of-{self.number}"}
        self.cookie = "Cookie: " + fields["set-cookie"].partition(";")[0]
        self.seen["right"] += 1
        self.seen["of the upstream"] += sum(not each.startswith("failed") for each in upstream)


def received(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with sock.makefile("rb") as file:
        status = int(file.readline().split()[1])
        fields = {}
        while (line := file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return status, fields, file.read(int(fields["content-length"]))


def test_of_200_users_nobody_gets_what_is_anothers(server: Server) -> None:
    seen: Counter[str] = Counter()

    with ThreadPoolExecutor(USERS) as pool:
        list(pool.map(lambda number: User(number, server.port, seen).run(), range(USERS)))

    assert seen["right"] > USERS * CALLS / 4, seen
    assert seen["of the upstream"] > seen["right"], seen
    assert not [what for what in seen if what.startswith(("none", "slow")) and not what.endswith("200")], seen
