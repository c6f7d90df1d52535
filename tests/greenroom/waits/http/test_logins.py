"""A connection that carries a login is its session's alone, whatever the scheme; all steps of the login come on it."""

import gc
import random
import socket
from collections.abc import Callable
from typing import Any

import gevent
import pytest
import requests
from requests.auth import AuthBase, HTTPDigestAuth

from greenroom.waits.http import logins
from greenroom.waits.http.adapter import Transport

from .pools import SOON, origin_of, pools_of, wait_until
from .upstream import Received, Upstream, answer

REQUESTS = {
    # what Authorization says -> whether it may log the connection in
    "Basic YTpi": False,
    "BEARER x.y.z": False,
    'Digest username="a", realm="NTLM, Negotiate x"': False,
    "AWS4-HMAC-SHA256 Credential=a/b": False,
    "NTLM TlRMTVNTUAAB": True,
    "Negotiate YII": True,
    "Kerberos abc": True,
    "Whatever abc": True,
    "abc": True,
    "Basic": True,
    "": True,
}
ANSWERS: dict[str, tuple[int, tuple[str, ...], bool]] = {
    "nothing": (200, (), False),
    "no word": (401, (), True),
    "no word of a proxy": (407, (), True),
    "Basic": (401, ('Basic realm="NTLM"',), False),
    "two": (401, ('Basic realm="a, b", Digest nonce="x", qop="auth", Bearer',), False),
    "parameters": (401, ('Bearer scope = "a", error="b"',), False),
    "NTLM": (401, ("NTLM",), True),
    "a step": (401, ("NTLM TlRMTVNTUAAC==",), True),
    "the last one": (200, ("Negotiate oRQ=",), True),
    "one of two": (401, ('Basic realm="x"', "Negotiate"), True),
    "one of two in a line": (401, ('Basic realm="x", NTLM',), True),
    "quoted": (401, ('Basic realm="\\", NTLM"',), False),
    "never heard of": (401, ("Ticket x=1",), True),
    "nothing in it": (401, ("",), False),
}


@pytest.mark.parametrize("said", REQUESTS)
@pytest.mark.parametrize("name", ["authorization", "proxy-authorization"])
def test_an_unknown_scheme_of_a_request_may_log_a_connection_in(name: str, said: str) -> None:
    assert logins.in_request({"host": ("Host", "a"), name: (name, said)}) is REQUESTS[said]
    assert logins.in_request({name: (name, said.encode())}) is REQUESTS[said]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_unknown_scheme_of_an_answer_may_log_a_connection_in(name: str) -> None:
    status, values, expected = ANSWERS[name]

    for field in ("www-authenticate", "proxy-authenticate"):
        assert logins.in_answer(status, [field] if values else ["date"], lambda _: values) is expected


class Door:
    """An upstream that logs a connection in, in three steps, and then answers with the name, whoever asks.

    `scheme` is how; `ends` what it does with a connection behind a refusal.
    """

    def __init__(self, upstream: Upstream, scheme: str, field: str = "Authorization", status: str = "401 No") -> None:
        self.scheme, self.field, self.status = scheme, field, status
        self.challenge = "WWW-Authenticate" if field == "Authorization" else "Proxy-Authenticate"
        self.challenged: dict[int, str] = {}
        self.users: dict[int, str] = {}
        self.url = upstream.on("/who", self)

    def __call__(self, sock: socket.socket, request: Received) -> bool:
        number = request.connection
        said = request.fields.get(self.field.lower(), "").removeprefix(self.scheme).strip()
        step, _, user = said.partition(":")
        if step == "one":
            self.users.pop(number, None)
            self.challenged[number] = user
            return self._refuse(sock, f"{self.scheme} two".strip())
        if step == "three" and self.challenged.get(number) == user:
            self.users[number] = user
        if number not in self.users or (step == "three" and self.challenged.get(number) != user):
            return self._refuse(sock, self.scheme)
        sock.sendall(answer(self.users[number].encode()))
        return True

    def _refuse(self, sock: socket.socket, challenge: str) -> bool:
        fields = (f"{self.challenge}: {challenge}",) if self.scheme else ()
        sock.sendall(answer(b"who?", self.status, *fields))
        return True


class InHook(AuthBase):
    """As requests-ntlm and requests-kerberos do it: the steps are sent by a hook, straight through the adapter."""

    def __init__(self, door: Door, user: str) -> None:
        self.door, self.user = door, user

    def __call__(self, request: Any) -> Any:
        request.register_hook("response", self.step)
        return request

    def step(self, response: Any, **settings: Any) -> Any:
        for number in ("one", "three"):
            if response.status_code not in (401, 407):
                break
            _ = response.content
            response.raw.release_conn()
            again = response.request.copy()
            again.headers[self.door.field] = f"{self.door.scheme} {number}:{self.user}".strip()
            response = response.connection.send(again, **settings)
        return response


def in_hook(door: Door, user: str, session: requests.Session) -> str:
    session.auth = InHook(door, user)
    return session.get(door.url, timeout=SOON).text


def by_hand(door: Door, user: str, session: requests.Session) -> str:
    """As applications do it that send the header themselves."""
    response = session.get(door.url, timeout=SOON)
    for step in ("one", "three"):
        if response.ok:
            break
        fields = {door.field: f"{door.scheme} {step}:{user}".strip()}
        response = session.get(door.url, headers=fields, timeout=SOON)
    return response.text


class Own(requests.Session):
    """A session that knows the steps."""

    door: Door
    user: str

    def request(self, *args: Any, **kwargs: Any) -> Any:
        response = super().request(*args, **kwargs)
        for step in ("one", "three"):
            if response.status_code in (401, 407):
                kwargs["headers"] = {self.door.field: f"{self.door.scheme} {step}:{self.user}".strip()}
                response = super().request(*args, **kwargs)
        return response


def by_session(door: Door, user: str, session: requests.Session) -> str:
    with Own() as own:
        own.door, own.user = door, user
        return own.get(door.url, timeout=SOON).text


DOORS = {
    "NTLM": ("NTLM",),
    "Negotiate": ("Negotiate",),
    "a scheme of somebody's own": ("Ticket",),
    "no scheme": ("",),
    "a proxy": ("NTLM", "Proxy-Authorization", "407 No"),
    "no 401": ("NTLM", "Authorization", "403 No"),
}


@pytest.mark.parametrize("way", [in_hook, by_hand, by_session])
@pytest.mark.parametrize("kind", [kind for kind in DOORS if kind != "no 401"])
def test_everybody_is_greeted_by_name(
    kind: str, way: Callable[[Door, str, requests.Session], str], ours: Transport, upstream: Upstream
) -> None:
    door = Door(upstream, *DOORS[kind])
    names = [f"user-{number}" for number in range(20)]
    kept = {name: requests.Session() for name in names}
    greetings: list[tuple[str, str]] = []

    def visit(name: str) -> None:
        with requests.Session() as session:
            greetings.append((name, way(door, name, session)))
        greetings.append((name, way(door, name, kept[name])))
        greetings.append(("who?", requests.get(door.url, timeout=SOON).text))

    visits = random.Random(1).sample(names * 5, 100)
    for start in range(0, 100, 20):
        gevent.joinall([gevent.spawn(visit, name) for name in set(visits[start : start + 20])], SOON, raise_error=True)

    assert len(greetings) > 150
    assert [each for each in greetings if each[0] != each[1]] == []
    for session in kept.values():
        session.close()
    wait_until(lambda: origin_of(ours).open == len(origin_of(ours).idle))
    assert pools_of(ours).idle.keys() == set(origin_of(ours).idle)  # those of the sessions are closed with them


def test_a_refusal_with_a_challenge_keeps_the_connection_for_the_next_step(ours: Transport, upstream: Upstream) -> None:
    door = Door(upstream, *DOORS["no 401"])
    with requests.Session() as session:
        numbers = [session.get(door.url).status_code, requests.get(upstream.url).json()["connection"]]
        by_hand(door, "ann", session)

        assert session.get(door.url).text == "ann"

    assert numbers == [403, 2]
    assert [each.connection for each in upstream.requests if each.target == "/who"] == [1, 1, 1, 1, 1]


def test_a_session_that_logs_in_keeps_its_connection_as_ever(adapter: str, upstream: Upstream) -> None:
    door = Door(upstream, "NTLM")

    with requests.Session() as session:
        assert [in_hook(door, "ann", session) for _ in range(3)] == ["ann"] * 3
        session.auth = InHook(door, "ann")
        assert session.post(door.url, data="x", timeout=SOON).text == "ann"

    assert upstream.connections == 1
    assert len(upstream.requests) == 6


def test_a_session_that_is_forgotten_closes_its_own_connections(ours: Transport, upstream: Upstream) -> None:
    session = requests.Session()
    in_hook(Door(upstream, "NTLM"), "ann", session)
    (owned,) = [origin for origins in pools_of(ours).owned.values() for origin in origins.values()]
    assert (owned.open, len(pools_of(ours).owned)) == (1, 1)

    del session
    gc.collect()

    assert (owned.open, len(pools_of(ours).owned)) == (0, 0)
    assert not pools_of(ours).idle


def test_an_answer_that_outlives_its_session_closes_its_connection(ours: Transport, upstream: Upstream) -> None:
    slow = upstream.on("/slow", lambda sock, request: sock.sendall(answer(b"x" * 200_000)) is None)
    with requests.Session() as session:
        response = session.get(slow, headers={"Authorization": "NTLM one"}, stream=True, timeout=SOON)

    assert response.content == b"x" * 200_000
    assert not pools_of(ours).idle


def test_digest_and_basic_work_as_ever(adapter: str, upstream: Upstream) -> None:
    def script(sock: socket.socket, request: Received) -> bool:
        if "authorization" not in request.fields:
            sock.sendall(answer(b"", "401 No", 'WWW-Authenticate: Digest realm="a", nonce="b", qop="auth"'))
        else:
            sock.sendall(answer(request.fields["authorization"].partition(" ")[0].encode()))
        return True

    url = upstream.on("/", script)

    assert requests.get(url, auth=HTTPDigestAuth("a", "b")).text == "Digest"
    assert requests.get(url, auth=("a", "b")).text == "Basic"
    assert requests.get(url, headers={"Authorization": "Bearer x"}).text == "Bearer"


def test_what_each_request_says_by_itself_is_shared(ours: Transport, upstream: Upstream) -> None:
    for number in range(5):
        requests.get(upstream.url, auth=(str(number), "x"))
        requests.get(upstream.url, headers={"Authorization": f"Bearer {number}"})

    assert upstream.connections == 1
