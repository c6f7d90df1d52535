"""Addresses in settings: of other hosts' ops pages, and of webhooks."""

from urllib.parse import urlsplit

Address = tuple[str, int]


def split_address(text: str) -> Address | None:
    """`host:port`, or `[::1]:port`; None if it is neither."""
    host, _, port = text.strip().rpartition(":")
    host = host.strip("[]")
    return (host, int(port)) if host and port.isascii() and port.isdecimal() and 0 < int(port) < 65_536 else None


def peer_problem(peer: str) -> str:
    """Why this can't name a peer; "" if it can."""
    if peer.startswith("file:"):
        return "" if peer.removeprefix("file:").startswith("/") else "must name a file by its whole path"
    return "" if split_address(peer.removeprefix("dns:")) else "must be host:port, dns:name:port or file:/path"


def webhook_problem(url: str) -> str:
    """Why this can't be the address of a webhook; "" if it can. Never repeats it, since its path may be a secret."""
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_fine = False
    return "" if is_fine else "must be addresses like https://hooks.example.com/T1/secret, comma separated"
