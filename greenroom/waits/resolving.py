"""Looking up the database's host before libpq does, which would stop the whole worker meanwhile.

libpq takes an address beside each name (`hostaddr`), connects to that, and goes on using the name for what names are
for: checking certificates, passwords in .pgpass. Sockets in the file system, addresses, and what a service file may
say are left to libpq.
"""

import ipaddress
import os
import socket

import gevent
import psycopg2
from psycopg2 import extensions

from ..in_flight import OWN, Wait

# Where a service is named its file may name the host, and libpq reads it.
LEFT_TO_LIBPQ = ("hostaddr", "service")
LEFT_TO_LIBPQ_VARIABLES = ("PGHOSTADDR", "PGSERVICE")


# How long a connection attempt may take when its URL has no connect_timeout.
CONNECT_TIMEOUT_SECONDS = 30.0


def connect_timeout_seconds(dsn: str) -> float:
    """The connect_timeout in `dsn`. As in libpq, 0 or nothing there means no limit; we keep ours then."""
    return float(extensions.parse_dsn(dsn).get("connect_timeout", 0)) or CONNECT_TIMEOUT_SECONDS


def with_addresses(dsn: str, timeout_seconds: float) -> str:
    """`dsn` with the addresses of its hosts, in the order of the hosts, each as often as it has addresses.

    A host that can't be looked up is left out while there is another. Raises psycopg2.OperationalError when none is
    left, as libpq does.
    """
    parameters = extensions.parse_dsn(dsn)
    hosts = (parameters.get("host") or os.environ.get("PGHOST", "")).split(",")
    if any(parameters.get(name) for name in LEFT_TO_LIBPQ) or any(map(os.environ.get, LEFT_TO_LIBPQ_VARIABLES)):
        return dsn
    if not any(needs_lookup(host) for host in hosts):
        return dsn
    ports = (parameters.get("port") or os.environ.get("PGPORT", "")).split(",")
    if len(ports) not in (1, len(hosts)):
        return dsn  # libpq says what is wrong
    ports = ports * len(hosts) if len(ports) == 1 else ports
    found: list[tuple[str, str, str]] = []
    problems = []
    for host, port in zip(hosts, ports, strict=True):
        try:
            found += [(host, port, address) for address in addresses(host, timeout_seconds)]
        except OSError as exc:
            problems.append(f'could not translate host name "{host}" to address: {exc.strerror or exc}')
    if not found:
        raise psycopg2.OperationalError("; ".join(problems))
    names, numbers, numeric = (",".join(column) for column in zip(*found, strict=True))
    port_parameter = {"port": numbers} if any(ports) else {}
    return str(extensions.make_dsn(dsn, host=names, hostaddr=numeric, **port_parameter))


def needs_lookup(host: str) -> bool:
    """Whether this is a name, and not a folder with sockets, an address, or nothing."""
    if not host or host.startswith(("/", "@")):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def addresses(host: str, timeout_seconds: float) -> list[str]:
    """Return the addresses for libpq to connect to for `host`; "" where it knows by itself. Raises OSError."""
    if not needs_lookup(host):
        return [""]
    with Wait("dns", host, OWN):
        with gevent.Timeout(timeout_seconds, TimeoutError(f"no answer within {timeout_seconds:.3g} s")):
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))
