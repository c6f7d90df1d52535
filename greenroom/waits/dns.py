"""Looking up names: remembered for a while, one look-up for all who ask, in threads of its own, never without a bound.

    getaddrinfo ─> an address, localhost, nothing at all?   answered here, no thread
                ─> remembered and fresh?                    answered from memory
                ─> being looked up already?                 waits for that look-up, too
                ─> a thread                                 waits, dns_timeout_seconds and the budget at most

Each outcome and what is remembered of it:

    addresses            for dns_ttl_seconds: getaddrinfo tells no TTL
    no such name         for FAILURE_SECONDS, and what was known before is forgotten
    failed or hangs      addresses known before are used on for dns_stale_seconds (RFC 8767, section 4), else EAI_AGAIN;
                         asked again after FAILURE_SECONDS. Nobody else waits for a look-up that hangs past its bound

Slow names don't hold up others: a look-up that has run for SLOW_SECONDS no longer counts against dns_threads, and no
zone (the last two labels of a name) ever has more than a quarter of all threads.
"""

import _socket
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gevent

from .. import clock
from ..deadline import raise_if_refused
from ..replacements import Put, part
from ..settings import Settings
from .threads import Job, Threads, is_loop_thread

# The look-ups of the threads: the C functions, which know nothing of gevent.
LookUp = Callable[..., list[Any]]
Key = tuple[Any, ...]

FAILURE_SECONDS = 1.0
SLOW_SECONDS = 0.2
# All threads together, as a multiple of dns_threads; libc gives up on a dead name server after 5 to 30 s.
HARD_LIMIT_FACTOR = 8
# How long one waits for a new answer while there is an old one. RFC 8767 suggests 1.8 s; our callers are servers.
STALE_AFTER_SECONDS = 1.0
NAMES_REMEMBERED = 4096
# Not answers but failures to get one; everything else is the name server's word.
FAILURES = {
    getattr(socket, name) for name in ("EAI_AGAIN", "EAI_FAIL", "EAI_MEMORY", "EAI_SYSTEM") if hasattr(socket, name)
}
HOSTS_FILE = Path("/etc/hosts")
# glibc's RES_MAXRETRY, see resolv.conf(5).
MOST_ATTEMPTS = 5


class Entry:
    """The memory of a name: its addresses or, when there are none, the error."""

    __slots__ = ("addresses", "error", "fresh_until", "known_at")

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.error: socket.gaierror | None = None
        self.fresh_until = 0.0
        self.known_at = 0.0


class Names:
    """The names that one process has looked up, and those that it looks up now."""

    def __init__(
        self,
        threads: Threads,
        *,
        timeout_seconds: float,
        ttl_seconds: float,
        stale_seconds: float,
        look_up: LookUp = _socket.getaddrinfo,
        now: Callable[[], float] = clock.now,
        is_localhost_local: bool = False,
    ) -> None:
        self.threads = threads
        self.timeout_seconds = timeout_seconds
        self.ttl_seconds = ttl_seconds
        self.stale_seconds = stale_seconds
        self.look_up = look_up
        self.now = now
        # Names for which libc asks nobody: they are in the hosts file.
        self.local_names = ("localhost",) if is_localhost_local else ()
        self.entries: dict[Key, Entry] = {}
        self.flights: dict[Key, Job] = {}
        self.pid = os.getpid()

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[Any]:
        """As socket.getaddrinfo. Raises socket.gaierror, or TimeoutError when the request's budget ends first.

        Runs on: request greenlet; switches.
        """
        if not host or not isinstance(host, str | bytes) or host in self.local_names or not is_loop_thread():
            return _socket.getaddrinfo(host, port, family, type, proto, flags)
        found = literal(host, port, family, type, proto, flags)
        if found is not None:
            return found
        number = port_number(port)
        service = port if number is None else 0
        key = (host.lower(), service, family, type, proto, flags)
        entry = self.entries.get(key)
        if entry is None or entry.fresh_until <= self.now():
            entry = self._refresh(key, entry, partial(self.look_up, host, service, family, type, proto, flags))
        if entry.error is not None:
            raise socket.gaierror(*entry.error.args)
        return list(entry.addresses) if number is None else [with_port(found, number) for found in entry.addresses]

    def call(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Another function of libc's that may ask a name server; nothing is remembered."""
        if not is_loop_thread():
            return function(*args)
        raise_if_refused()
        job = self.threads.submit(partial(function, *args), zone(name))
        try:
            if job.wait("dns", name, self.timeout_seconds):
                return job.result()
        finally:
            self.threads.withdraw(job)
        raise self._too_slow(name)

    def _refresh(self, key: Key, old: Entry | None, look_up: Callable[[], list[Any]]) -> Entry:
        """The entry after a look-up: a new one, or the old one where it must do."""
        name = shown(key[0])
        patience = self.timeout_seconds
        if is_usable := old is not None and self._is_usable(old):
            patience = min(STALE_AFTER_SECONDS, patience)
        raise_if_refused()
        flight = self._flight(key, look_up)
        if self.now() - flight.started < patience:  # one that is in line has not started: for ever to come
            try:
                flight.wait("dns", name, patience)
            finally:
                self._leave(key, flight)
        if flight.is_done:
            entry: Entry = flight.result()
            return entry
        if is_usable:
            assert old is not None
            return old
        raise self._too_slow(name)

    def _flight(self, key: Key, look_up: Callable[[], list[Any]]) -> Job:
        """The look-up of `key` that is under way, if need be a new one."""
        if self.pid != os.getpid():  # forked: the threads stayed behind
            self.pid = os.getpid()
            self.flights.clear()
        flight = self.flights.get(key)
        if flight is None:
            flight = self.threads.submit(look_up, zone(key[0]), partial(self._landed, key))
            self.flights[key] = flight
        return flight

    def _leave(self, key: Key, flight: Job) -> None:
        """A look-up that nobody waits for is not begun; one that runs goes on, and its answer will be of use."""
        if not flight.is_awaited() and flight in self.threads.waiting:
            self.threads.withdraw(flight)
            self.flights.pop(key, None)

    def _landed(self, key: Key, flight: Job) -> None:
        """Remember what a look-up has brought, and hand the entry to those who wait. Runs on: hub."""
        self.flights.pop(key, None)
        error, now = flight.error, self.now()
        if error is not None and not isinstance(error, socket.gaierror):
            return  # not about the name but about the question: for those who asked it
        entry = Entry()
        if error is None:
            entry.addresses = flight.value
            entry.known_at = now
            entry.fresh_until = now + self.ttl_seconds
        else:
            old = self.entries.get(key)
            if error.errno in FAILURES and old is not None and self._is_usable(old):
                entry = old
            else:
                entry.error = error.with_traceback(None)
            entry.fresh_until = now + FAILURE_SECONDS
        flight.value, flight.error = entry, None
        self.entries.pop(key, None)
        self.entries[key] = entry  # the newest stand last
        if len(self.entries) > NAMES_REMEMBERED:
            del self.entries[next(iter(self.entries))]

    def _is_usable(self, entry: Entry) -> bool:
        return bool(entry.addresses) and self.now() < entry.known_at + self.ttl_seconds + self.stale_seconds

    def _too_slow(self, name: str) -> socket.gaierror:
        return socket.gaierror(
            socket.EAI_AGAIN, f"Temporary failure in name resolution: {name} not found in {self.timeout_seconds:g} s"
        )


class Resolver:
    """The resolver of gevent's hub, behind the patched functions of `socket` and its sockets' connect()."""

    names: Names

    def __init__(self, hub: Any = None) -> None:
        """Take what gevent calls it with."""

    def getaddrinfo(self, *question: Any) -> list[Any]:
        return self.names.getaddrinfo(*question)

    def close(self) -> None:
        """Nothing is this hub's alone."""

    def gethostbyname(self, hostname: Any) -> str:
        if not isinstance(hostname, str | bytes | bytearray) or hostname in ("", "<broadcast>", "255.255.255.255"):
            return _socket.gethostbyname(hostname)  # no names: libc's own words for addresses, and what it refuses
        return str(self.getaddrinfo(hostname, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])

    def gethostbyname_ex(self, hostname: Any) -> Any:
        return self.names.call(shown(hostname), _socket.gethostbyname_ex, hostname)

    def gethostbyaddr(self, address: Any) -> Any:
        return self.names.call(shown(address), _socket.gethostbyaddr, address)

    def getnameinfo(self, address: Any, flags: int) -> Any:
        if flags & NUMERIC_NAMES == NUMERIC_NAMES:
            return _socket.getnameinfo(address, flags)
        return self.names.call(shown(address[0]), _socket.getnameinfo, address, flags)


NUMERIC_NAMES = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def install(settings: Settings) -> None:
    """Have all look-ups of this process done here. Safe to call again, with other settings.

    Runs on: the main thread.
    """
    import encodings.idna  # noqa: F401  # libc's caller needs it in a thread, where importing can hang

    # glibc asks a silent name server again after 5 s; after 1 s means that its recovery is noticed within one.
    os.environ.setdefault("RES_OPTIONS", f"timeout:1 attempts:{min(settings.dns_timeout_seconds, MOST_ATTEMPTS)}")
    threads = Threads(
        settings.dns_threads,
        slow_seconds=SLOW_SECONDS,
        hard_limit=HARD_LIMIT_FACTOR * settings.dns_threads,
        group_limit=max(1, HARD_LIMIT_FACTOR * settings.dns_threads // 4),
    )
    Resolver.names = Names(
        threads,
        timeout_seconds=settings.dns_timeout_seconds,
        ttl_seconds=settings.dns_ttl_seconds,
        stale_seconds=settings.dns_stale_seconds,
        is_localhost_local=is_in_hosts_file("localhost"),
    )
    _take_their_place()


@part("names")
def _take_their_place(put: Put) -> None:
    put(gevent.config, "resolver", Resolver)  # for hubs to come
    put(gevent.get_hub(), "resolver", Resolver())


def literal(host: str | bytes, *question: Any) -> list[Any] | None:
    """The answer where `host` is an address and no name, in any notation (127.1, 0x7f000001, ::1%lo); else None."""
    text = shown(host)
    if not text[:1].isdigit() and ":" not in text:
        return None
    port, family, kind, proto, flags = question
    try:
        return _socket.getaddrinfo(host, port, family, kind, proto, flags | socket.AI_NUMERICHOST)
    except socket.gaierror as exc:
        if exc.errno == socket.EAI_NONAME:
            return None
        raise


def port_number(port: Any) -> int | None:
    """The port if it is a number that any address can have; None where libc must say what it means."""
    if isinstance(port, str | bytes) and port.isdigit():
        port = int(port)
    return port if isinstance(port, int) and 0 <= port <= 65_535 else None


def with_port(found: Any, port: int) -> Any:
    family, kind, proto, canonical_name, address = found
    return family, kind, proto, canonical_name, (address[0], port, *address[2:])


def zone(name: Any) -> str:
    """The last two labels: whose name servers are likely to answer, or not to."""
    return ".".join(shown(name).rstrip(".").lower().split(".")[-2:])


def shown(name: Any) -> str:
    return name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)


def is_in_hosts_file(name: str) -> bool:
    try:
        lines = HOSTS_FILE.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(name in line.partition("#")[0].split()[1:] for line in lines)
