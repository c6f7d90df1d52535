"""200 users at once with nonces, over what all calls of a process share, and an upstream full of faults: nobody gets
what is another's, and each error is one that the user's own call could have had.
"""

import hashlib
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import pytest
import requests

from greenroom import deadline
from greenroom.waits.http.adapter import Transport

from .pools import SOON, pools_of, wait_until
from .test_logins import Door, by_hand
from .test_tls import Certificate, Start
from .upstream import Received, Upstream, answer, reset

USERS = 200
CALLS = 6
FAULTS = (
    "none",
    "none",
    "none",
    "slow",
    "cut-head",
    "cut-body",
    "reset",
    "reset-body",
    "extra",
    "chunks",
    "large",
    "401",
)


def body_of(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode()).hexdigest().encode()


def faulty(sock: socket.socket, request: Received) -> bool:
    """Answers with what belongs to the nonce, in the way that the request's target says."""
    _, fault, nonce = request.target.split("/")
    body = body_of(nonce)
    assert request.fields["x-nonce"] == nonce
    assert request.fields.get("cookie", f"nonce={nonce}") == f"nonce={nonce}"
    assert request.body in (b"", nonce.encode())
    fields = ("X-Nonce: " + nonce, f"Set-Cookie: nonce={nonce}; Path=/", "Keep-Alive: timeout=5, max=40")
    whole = answer(b"" if request.method == "HEAD" else body, "401 No" if fault == "401" else "200 OK", *fields)
    if fault == "slow":
        threading.Event().wait(0.05)
    elif fault == "cut-head":
        sock.sendall(whole[: len(whole) // 3])
        return False
    elif fault == "cut-body":
        sock.sendall(whole[:-10])
        return False
    elif fault == "reset":
        reset(sock)
        return False
    elif fault == "reset-body":
        sock.sendall(whole[:-10])
        reset(sock)
        return False
    elif fault == "extra":
        sock.sendall(whole + answer(b"somebody's", "200 OK", "X-Nonce: somebody's"))
        return True
    elif fault == "chunks" and request.method != "HEAD":
        head = "\r\n".join(["HTTP/1.1 200 OK", *fields, "Transfer-Encoding: chunked"]).encode()
        sock.sendall(head + b"\r\n\r\n20\r\n" + body[:32] + b"\r\n")
        sock.sendall(b"20\r\n" + body[32:] + b"\r\n0\r\n\r\n")
        return True
    elif fault == "large":
        whole = answer(body * 3000, "200 OK", *fields)
        sock.sendall(whole[: -3000 * 64] if request.method == "HEAD" else whole)
        return True
    sock.sendall(whole)
    return True


class User:
    """Asks in all ways, and counts what came of it."""

    def __init__(self, number: int, url: str, seen: Counter[str], **settings: Any) -> None:
        self.number = number
        self.url = url
        self.seen = seen
        self.settings = {"timeout": SOON, **settings}
        self.random = random.Random(number)

    def run(self) -> None:
        with requests.Session() as session:
            for call in range(CALLS):
                self.ask(f"{self.number}-{call}", session)

    def ask(self, nonce: str, session: requests.Session) -> None:
        fault = self.random.choice(FAULTS)
        way = self.random.choice(("bare", "session", "new session"))
        method = self.random.choice(("GET", "GET", "POST", "HEAD"))
        settings = {
            "headers": {"X-Nonce": nonce},
            "data": nonce if method == "POST" else None,
            "stream": self.random.random() < 0.3,
            **self.settings,
        }
        session.cookies.clear()
        asking = {"bare": requests, "session": session, "new session": requests.Session()}[way]
        try:
            with deadline.budget(self.random.choice((0.02, SOON, SOON))):
                response = asking.request(method, f"{self.url}/{fault}/{nonce}", **settings)
                if settings["stream"] and self.random.random() < 0.3:
                    response.close()
                    return
                content = response.content
        except (requests.RequestException, TimeoutError) as exc:
            self.seen[f"{fault}: {type(exc).__name__}"] += 1
            return
        if fault == "cut-head":  # half a head is a head, as ever
            assert nonce in response.headers.get("X-Nonce", nonce)
            assert not content
        else:
            assert response.headers["X-Nonce"] == nonce
            assert response.cookies["nonce"] == nonce
            assert response.request.headers["X-Nonce"] == nonce
            assert method == "HEAD" or set(content[at : at + 64] for at in range(0, len(content), 64)) == {
                body_of(nonce)
            }
        self.seen["right"] += 1


def everybody(transport: Transport, make: Callable[[int, Counter[str]], User]) -> Counter[str]:
    seen: Counter[str] = Counter()
    greenlets = [gevent.spawn(make(number, seen).run) for number in range(USERS)]
    gevent.joinall(greenlets, 4 * SOON, raise_error=True)
    assert all(greenlet.successful() for greenlet in greenlets)
    del greenlets
    pools = pools_of(transport)
    wait_until(lambda: all(origin.open == len(origin.idle) for origin in pools.origins.values()))
    return seen


@pytest.mark.parametrize("connections", [20, 400])
def test_of_200_users_nobody_gets_what_is_anothers(connections: int, switch: Any, upstream: Upstream) -> None:
    transport = switch.to("ours", connections=connections, age_seconds=0.5)
    upstream.scripts = AnyPath()

    seen = everybody(transport, lambda number, seen: User(number, upstream.url, seen))

    assert seen["right"] > USERS * CALLS / 4
    assert not [what for what in seen if what.startswith("none") and "Timeout" not in what and "NoSlot" not in what]
    assert upstream.connections < len(upstream.requests)  # they did share


def test_of_200_users_over_tls_nobody_gets_what_is_anothers(
    ours: Transport, tls_upstream: Start, certificate: Certificate
) -> None:
    upstream = tls_upstream()
    upstream.scripts = AnyPath()

    seen = everybody(ours, lambda number, seen: User(number, upstream.url, seen, verify=certificate[0]))

    assert seen["right"] > USERS


class AnyPath(dict[str, Any]):
    """Every path is answered by the same script."""

    def get(self, key: str, default: Any = None) -> Any:
        return faulty


def test_of_200_users_who_log_connections_in_nobody_is_taken_for_another(ours: Transport, upstream: Upstream) -> None:
    door = Door(upstream, "Negotiate")
    greeted: list[tuple[str, str]] = []

    def visit(name: str) -> None:
        with requests.Session() as session:
            try:
                with deadline.budget(0.03 if name.endswith("3") else SOON):
                    greeted.append((name, by_hand(door, name, session)))
            except (requests.RequestException, TimeoutError):
                pass
            greeted.append(("who?", requests.get(door.url, timeout=SOON).text))
            greeted.append((name, by_hand(door, name, session)))

    gevent.joinall([gevent.spawn(visit, f"user-{number}") for number in range(USERS)], 4 * SOON, raise_error=True)

    assert len(greeted) >= 2 * USERS
    assert [each for each in greeted if each[0] != each[1]] == []
