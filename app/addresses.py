"""Which addresses everybody may reach, and how one address is written."""

import ipaddress
import re

NAT64 = ipaddress.ip_network("64:ff9b::/96")
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
# Public as far as `is_global` of every supported Python knows.
NOT_FOR_EVERYBODY = (
    ipaddress.ip_network("192.0.0.0/24"),  # protocol assignments; Oracle's cloud has its metadata there
    ipaddress.ip_network("192.88.99.0/24"),  # relays into IPv6, switched off
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's host agent: only its own machines reach it
)

# As peers and proxies write it: `[::1]:80`, `[::1]`, `1.2.3.4:80`, and the address alone; perhaps in quotes.
BRACKETED = re.compile(r"\[([^\[\]]*)\](?::\w*)?")
WITH_PORT = re.compile(r"([0-9.]+):\w*")


def plain_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in `text`, without port, zone, brackets, quotes and IPv6 coat of IPv4; None if it is none.

    All that stand for one machine come out equal, so that nobody counts as many by writing the address in other ways.
    """
    bare = text.strip().strip('"').strip()
    match = BRACKETED.fullmatch(bare) or WITH_PORT.fullmatch(bare)
    try:
        address = ipaddress.ip_address((match[1] if match else bare).partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_public(address: str) -> bool:
    """True when everybody can reach `address`: not loopback, private, link-local, shared, multicast or reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return parsed.is_global and not parsed.is_multicast and not any(parsed in net for net in NOT_FOR_EVERYBODY)
    # An IPv4 address in an IPv6 coat is judged by what is inside.
    inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
    if parsed in NAT64:
        inner = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    if inner:
        return is_public(str(inner))
    # All else outside 2000::/3 is special in one way or another; is_global alone lets ::127.0.0.1 and fec0:: pass.
    return parsed in GLOBAL_UNICAST and parsed.is_global
