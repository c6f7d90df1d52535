"""The connections to sources: an address is checked as it is connected to, and another thread can cut the call.

    Lanes.answer -> a Lane: a plain requests.Session that serves one call at a time, so that its sockets are known
                 -> session.get() -> ... -> connect() -> on_event -> is the address public?

Python tells its audit hooks of each connect(), with the socket and the address, before the system is asked to connect
(https://docs.python.org/3/library/audit_events.html). So what is checked is the address itself, whoever looked the name
up and whatever library connects, under any server, and a name that changes its address a moment later gains nothing.
Extras of `requests` are switched off by its own settings: proxies and passwords of the machine, cookies,
redirects. Each connection belongs to one lane, because calls have a response hook: a server that lets sessions share
connections (Greenroom does) gives those that have one connections of their own, and no unchecked one comes in that way.
"""

import logging
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import requests

from .addresses import is_public

logger = logging.getLogger(__name__)

USER_AGENT = "boards/1.0"
# RFC 8586: tells a server of ours, at the end of whatever chain, that a board is being fetched; see fetch_limits.py.
LOOP_HEADER = "CDN-Loop"
LOOP_TOKEN = "boards"
MOST_KEPT = 50  # lanes, and so connections, that wait for their next call
_threads = threading.local()


class SourceError(Exception):
    """A source can't be used; the message is for the user and names what to change."""


class NotPublic(SourceError, OSError):
    """An address may not be connected to. To libraries it is one that can't be: they clean up, and try the next one."""


class Cut(OSError):
    """The call was cut by another thread: nobody waits for this answer any more."""


class Caller(Protocol):
    """The call that a lane serves."""

    def take(self, lane: "Lane | None") -> None:
        """The lane that `cut` has to end; None when it is not this call's any more. Raises Cut if it is too late."""

    def remaining_seconds(self) -> float:
        """Seconds until its deadline. Raises requests.Timeout once it has passed, Cut if it was cut."""


@dataclass
class Answer:
    """A response whose body is still to be read. `location` is where it redirects to, None if it does not."""

    response: requests.Response
    location: str | None
    is_read: bool = False  # to its end: then the connection can be used again


class Lane:
    """A session for one origin (scheme, host and port) and one call at a time."""

    def __init__(self, origin: SplitResult, *, allow_private: bool, authorities: str | bool) -> None:
        self.origin = origin
        self.allow_private = allow_private
        self.is_kept = False  # it has served a call before
        self.is_cut = False
        self.has_connected = False  # since `get` began
        # Our handles of the sockets that it has opened: whatever the libraries do to theirs, ours can end the wait.
        self.sockets: list[socket.socket] = []
        self._close_sockets = weakref.finalize(self, close_all, self.sockets)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = authorities
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"})
        self.session.headers[LOOP_HEADER] = LOOP_TOKEN

    def get(self, url: str, timeout_seconds: float) -> Answer:
        """Raises requests' errors, of which NotPublic or Cut may be the cause."""
        location: str | None = None

        def take_redirect(response: requests.Response, **_: Any) -> None:
            # requests would follow it, and even where it must not, read its body, however long.
            nonlocal location
            location = self.session.get_redirect_target(response)
            if location is not None:
                del response.headers["Location"]

        watch_connects()
        self.has_connected = False
        _threads.lane = self
        try:
            response = self.session.get(
                url, stream=True, timeout=timeout_seconds, allow_redirects=False, hooks={"response": take_redirect}
            )
        finally:
            _threads.lane = None
        if not self.sockets:
            response.close()
            raise RuntimeError("an answer came over a connection that nobody has checked")
        return Answer(response, location)

    def connecting(self, sock: Any, address: Any) -> None:
        """`sock` is about to connect to `address`; raising keeps it from it. Must not wait: see `on_event`."""
        if sock.type != socket.SOCK_STREAM:
            return  # a look-up in Python
        if not self.has_connected:
            self.has_connected = True
            close_all(self.sockets)  # those of a connection that is no more
        if not (self.allow_private or is_public_peer(address)):
            raise NotPublic(f"{self.origin.hostname} is not a public address")
        self.sockets.append(socket.fromfd(sock.fileno(), sock.family, sock.type))
        if self.is_cut:
            raise Cut

    def cut(self) -> None:
        """End the call from another thread: its socket is shut down, so a blocked read returns at once."""
        self.is_cut = True
        for sock in self.sockets[:]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as exc:
                logger.debug("socket was closed already", extra={"reason": str(exc)})

    def keep(self) -> None:
        """Its call is over and went well."""
        self.is_kept = True
        connected = {}
        for sock in self.sockets:  # an attempt may have failed, or one socket been told of twice
            try:
                connected[sock.getsockname(), sock.getpeername()] = sock
            except OSError as exc:
                logger.debug("not the one that was used", extra={"reason": str(exc)})
        for sock in set(self.sockets) - set(connected.values()):
            sock.close()
        self.sockets[:] = connected.values()

    def close(self) -> None:
        self.session.close()
        self._close_sockets()


class Lanes:
    """The lanes of one application. Thread-safe."""

    def __init__(self, *, allow_private: bool, authorities: str | bool = True) -> None:
        self.settings: dict[str, Any] = {"allow_private": allow_private, "authorities": authorities}
        self._kept: list[Lane] = []  # the one that was used last comes last
        self._lock = threading.Lock()

    @contextmanager
    def answer(self, url: str, caller: Caller) -> Iterator[Answer]:
        """The answer to a GET of `url`, which `caller` may have cut meanwhile."""
        lane = self._take(urlsplit(url)._replace(path="", query="", fragment=""))
        try:
            caller.take(lane)
            try:
                answer = lane.get(url, caller.remaining_seconds())
            except requests.ConnectionError as exc:
                if isinstance(exc, requests.Timeout) or lane.has_connected or not lane.is_kept:
                    raise
                # The other side closed a kept connection as we took it; a GET may be sent again, once.
                lane.close()
                lane = Lane(lane.origin, **self.settings)
                caller.take(lane)
                answer = lane.get(url, caller.remaining_seconds())
            with answer.response:
                yield answer
        except BaseException:
            caller.take(None)
            lane.close()
            raise
        caller.take(None)
        if answer.is_read and not lane.is_cut:
            self._give_back(lane)
        else:
            lane.close()

    def _take(self, origin: SplitResult) -> Lane:
        with self._lock:
            for number in reversed(range(len(self._kept))):
                if self._kept[number].origin == origin:
                    return self._kept.pop(number)
        return Lane(origin, **self.settings)

    def _give_back(self, lane: Lane) -> None:
        lane.keep()
        with self._lock:
            self._kept.append(lane)
            oldest = self._kept.pop(0) if len(self._kept) > MOST_KEPT else None
        if oldest is not None:
            oldest.close()


@cache
def watch_connects() -> None:
    """From now on `on_event` is told; such a hook stays for as long as the process lives."""
    sys.addaudithook(on_event)


def on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Called by Python for much that it does, in the thread that does it; what is raised here ends it."""
    if event == "socket.connect":
        lane = getattr(_threads, "lane", None)
        if lane is not None:
            lane.connecting(*arguments)


def is_public_peer(address: Any) -> bool:
    """Whether a socket may connect to `address`: a name that is still to be looked up, or a path, is no answer."""
    try:
        return isinstance(address, tuple) and is_public(str(address[0]))
    except ValueError:
        return False


def close_all(sockets: list[socket.socket]) -> None:
    while sockets:
        sockets.pop().close()
