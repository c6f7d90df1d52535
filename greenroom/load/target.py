"""Where the load goes: a URL, the address behind its name, and whether it may be loaded without being asked twice."""

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .units import LoadError

_PRIVATE = tuple(
    ipaddress.ip_network(one)
    for one in (
        "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "169.254.0.0/16",
        "fe80::/10",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One origin: all requests of a run go there. `path` is that of the URL that was given, with its query."""

    scheme: str
    host: str
    port: int
    path: str
    family: int = socket.AF_INET
    address: tuple[Any, ...] = ()

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse(url: str) -> Target:
    """Raises LoadError for what is no http or https URL."""
    if "://" not in url:
        raise LoadError(f"{url!r} is no URL: write http://{url.lstrip('/') or '127.0.0.1:8000/'}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise LoadError(f"{url!r} is no URL: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LoadError(f"{url!r} is no URL of a web server: write http://127.0.0.1:8000/")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path)


def resolved(target: Target, *, may_load_anything: bool = False) -> Target:
    """With the address that is connected to. Raises LoadError when it has none, or one that is not ours to load."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise LoadError(f"the name {target.host} has no address: {exc}; correct the URL") from exc
    found = sorted(found, key=lambda one: one[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    if not may_load_anything and not all(is_private(str(one[4][0])) for one in found):
        raise LoadError(
            f"{target.host} ({address[0]}) is neither this machine nor a private network: a load test of somebody "
            "else's server is an attack; if you may load it, add --i-may-load-this"
        )
    return Target(target.scheme, target.host, target.port, target.path, family, address)


def is_private(address: str) -> bool:
    """Loopback, link-local, and the networks of RFC 1918 and RFC 4193."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in _PRIVATE if network.version == (mapped or found).version)


def reach(target: Target, timeout_seconds: float) -> Target:
    """Connect once before the run; the target with the address that took the connection. Raises LoadError if none does.

    A connection that is merely slow is no reason not to begin: the run will count it.
    """
    try:
        others = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        others = []
    candidates = [(target.family, target.address), *((one[0], one[4]) for one in others if one[4] != target.address)]
    refused: OSError | None = None
    for family, address in candidates:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(min(timeout_seconds, 2.0))
            try:
                probe.connect(address)
            except TimeoutError:
                pass
            except OSError as exc:
                refused = refused or exc
                continue
            return Target(target.scheme, target.host, target.port, target.path, family, address)
    words = refused.strerror if refused is not None and refused.strerror else str(refused)
    raise LoadError(f"{target.origin} cannot be reached: {words}; start the server, or correct the URL")


def tls_context(*, verify: bool, ca_file: str, http2: bool = False) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as exc:
        raise LoadError(f"the certificates in {ca_file} cannot be read: {exc}") from exc
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
    return context
