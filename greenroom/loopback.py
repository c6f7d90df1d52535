"""Which addresses are this machine's own."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Raises ValueError when `host` is a name and no address."""
    address = ipaddress.ip_address(host)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
