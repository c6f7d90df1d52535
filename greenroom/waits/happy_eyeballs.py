"""Connecting to a name: its IPv6 and IPv4 addresses are tried side by side, and the first that answers is taken.

    addresses as libc orders them (RFC 6724), families alternating
        try the first ─ 250 ms, or it failed ─> try the next, too ─ ... ─> one is connected: the others are closed

Source: RFC 8305, "Happy Eyeballs Version 2", sections 4 and 5. One greenlet does it all.
"""

import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from functools import update_wrapper
from itertools import chain, zip_longest
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event

from .. import clock
from ..deadline import raise_if_refused
from ..in_flight import OWN, Wait
from ..on_import import when_imported
from ..replacements import Put, Replace, part
from . import peers

# "Connection Attempt Delay": 250 ms is recommended.
STAGGER_SECONDS = 0.25
UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY)
READY_TO_WRITE = 2
POLL = monkey.get_original("select", "poll") if hasattr(select, "poll") else None  # some systems have none
# The standard library's mark for "no timeout given"; None means no timeout at all.
DEFAULT_TIMEOUT: Any = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]

Address = tuple[Any, ...]
Found = tuple[Any, Any, int, str, Any]


class Attempt:
    """One socket on its way to one address. `error` is an errno, 0 once it is connected, None before."""

    def __init__(self, found: Found, source_address: Address | None, options: Sequence[Any], changed: Event) -> None:
        family, kind, proto, _, self.address = found
        self.changed = changed
        self.error: int | None = None
        self.watcher: Any = None
        self.sock = socket.socket(family, kind, proto)
        try:
            for option in options:
                self.sock.setsockopt(*option)
            if source_address:
                self.sock.bind(source_address)
            self.sock.setblocking(False)
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        code = self.sock.connect_ex(self.address)
        if code not in UNDER_WAY:
            self.error = code
            return
        if is_writable(self.sock.fileno()):  # on this machine it mostly is: then nobody has to wait
            self.error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return
        self.watcher = gevent.get_hub().loop.io(self.sock.fileno(), READY_TO_WRITE)
        self.watcher.start(self._on_ready)

    def _on_ready(self) -> None:
        self.error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._stop()
        self.changed.set()

    def _stop(self) -> None:
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher.close()
            self.watcher = None

    def take(self) -> socket.socket:
        self._stop()
        return self.sock

    def close(self) -> None:
        self._stop()
        self.sock.close()

    def exception(self) -> OSError:
        return OSError(self.error, os.strerror(self.error or 0))


def is_writable(file_number: int) -> bool:
    """Asked of the system; gevent's poll would ask the loop."""
    if POLL is None:
        return False
    poll = POLL()
    poll.register(file_number, select.POLLOUT)
    return bool(poll.poll(0))


def create_connection(
    address: tuple[Any, Any],
    timeout: Any = DEFAULT_TIMEOUT,
    source_address: Address | None = None,
    *,
    all_errors: bool = False,
    socket_options: Sequence[Any] = (),
    family: int = socket.AF_UNSPEC,
) -> socket.socket:
    """As socket.create_connection, but `timeout` is for all addresses together and not for each of them.

    `socket_options` are arguments of setsockopt(), set before connecting; `family` keeps to IPv4 or IPv6.
    Raises TimeoutError when it, or the request's budget, is used up.
    Runs on: request greenlet; switches.
    """
    host, port = address
    found: list[Found] = list(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))
    if not found:
        raise OSError("getaddrinfo returns an empty list")
    own_timeout = socket.getdefaulttimeout() if timeout is DEFAULT_TIMEOUT else timeout
    name = f"{host}:{port}"
    try:
        sock = _first_connected(alternating(found), name, own_timeout, source_address, socket_options, all_errors)
    except OSError as exc:
        peers.not_connected(name, exc)
        raise
    sock.settimeout(own_timeout)
    return sock


def _first_connected(
    found: list[Found],
    name: str,
    timeout: float | None,
    source_address: Address | None,
    options: Sequence[Any],
    all_errors: bool,
) -> socket.socket:
    raise_if_refused()
    give_up_at = None if timeout is None else clock.now() + timeout
    changed = Event()
    attempts: list[Attempt] = []
    errors: list[OSError] = []
    untried = iter(found)
    try:
        with Wait("upstream", name, OWN):
            following: Found | None = next(untried, None)
            while following is not None or attempts:
                changed.clear()
                if give_up_at is not None and clock.now() >= give_up_at:
                    raise TimeoutError("timed out")
                if following is not None:
                    try:
                        attempts.append(Attempt(following, source_address, options, changed))
                    except OSError as exc:
                        errors.append(exc)
                    following = next(untried, None)
                if attempts and all(attempt.error is None for attempt in attempts):
                    changed.wait(_patience(give_up_at, has_more=following is not None))
                for attempt in [attempt for attempt in attempts if attempt.error is not None]:
                    attempts.remove(attempt)
                    if attempt.error == 0:
                        return attempt.take()
                    errors.append(attempt.exception())
                    attempt.close()
    finally:
        for attempt in attempts:
            attempt.close()
    if all_errors:
        raise ExceptionGroup("create_connection failed", errors)
    raise errors[-1]


def _patience(give_up_at: float | None, *, has_more: bool) -> float | None:
    """How long to wait for the attempts that go on before the next is made, or all is given up."""
    left = None if give_up_at is None else max(0.0, give_up_at - clock.now())
    if not has_more:
        return left
    return STAGGER_SECONDS if left is None else min(STAGGER_SECONDS, left)


def alternating(found: Sequence[Found]) -> list[Found]:
    """The families in turns, that of the first address first; within a family the order stays (RFC 8305, 4)."""
    first = found[0][0]
    of_first = [entry for entry in found if entry[0] == first]
    others = [entry for entry in found if entry[0] != first]
    return [entry for entry in chain.from_iterable(zip_longest(of_first, others)) if entry is not None]


def install() -> None:
    """Have `socket`, and urllib3, which has a function of its own for it, connect this way. Safe to call again.

    Runs on: the main thread.
    """
    _install_in_socket()
    when_imported("urllib3.util.connection", _install_in_urllib3)


@part("connecting")
def _install_in_socket(put: Put) -> None:
    _replace_in(socket, create_connection, put)


@part("urllib3")
def _install_in_urllib3(put: Put, module: Any) -> None:
    _replace_in(module, _in_urllib3(module), put)


def _replace_in(module: Any, own: Callable[..., Any], put: Replace) -> None:
    original, kind = module.create_connection, socket.socket

    def connect(*args: Any, **kwargs: Any) -> Any:
        # Another kind of socket (PySocks, mocks) does not connect the way that ours here do.
        return (own if socket.socket is kind else original)(*args, **kwargs)

    put(module, "create_connection", update_wrapper(connect, own))


def _in_urllib3(module: Any) -> Any:
    """urllib3's own words for its arguments and for a host that can be none; the rest is ours."""
    unset = getattr(module, "_DEFAULT_TIMEOUT", DEFAULT_TIMEOUT)  # urllib3 1 has the standard library's

    def urllib3_create_connection(
        address: tuple[str, int],
        timeout: Any = unset,
        source_address: Address | None = None,
        socket_options: Sequence[Any] | None = None,
    ) -> socket.socket:
        host, port = address
        host = host.strip("[]") if host.startswith("[") else host
        try:
            host.encode("idna")
        except UnicodeError:
            raise module.LocationParseError(f"'{host}', label empty or too long") from None
        return create_connection(
            (host, port),
            DEFAULT_TIMEOUT if timeout is unset else timeout,
            source_address,
            socket_options=socket_options or (),
            family=module.allowed_gai_family(),
        )

    return urllib3_create_connection
