"""gunicorn's request, with what the PROXY protocol demands of receivers and gunicorn's parser does not do.

PROXY UNKNOWN, v2 UNSPEC        "the receiver must ignore anything presented before the CRLF", and use the real
UDP, UNIX in v2                 connection endpoints: health checks of load balancers say so (PROXY protocol 2.1,
                                2.2: what is valid and not supported falls back to UNSPEC)
what is no such header          400, as any other wrong head; no traceback
"""

from typing import Any

from gunicorn.http.errors import InvalidProxyLine
from gunicorn.http.message import Request

from .gunicorns import InvalidProxyHeader

UNKNOWN = b"PROXY UNKNOWN"
LINE_END = b"\r\n"
V2_HEAD_BYTES = 16
V2_FAMILIES_AND_PROTOCOLS = frozenset((family << 4 | protocol) for family in range(4) for protocol in range(3))
V2_SUPPORTED = frozenset((0x11, 0x21))  # TCP over IPv4 and IPv6
V2_PROXY = 0x21  # version 2, on behalf of a client
V2_LOCAL = 0x20  # version 2, on its own behalf


class ProxiedRequest(Request):  # type: ignore[misc]  # gunicorn has no types
    """Private to gunicorn: the methods. Until 24.0 there is but the first one, and version 1 of the protocol."""

    def parse_proxy_protocol(self, line: str) -> None:
        if line != UNKNOWN.decode() and not line.startswith(f"{UNKNOWN.decode()} "):
            super().parse_proxy_protocol(line)

    def _handle_proxy_protocol(self, unreader: Any, buf: bytearray, mode: str) -> bytearray:
        try:
            rest: bytearray = super()._handle_proxy_protocol(unreader, buf, mode)
        except (InvalidProxyHeader, ValueError) as exc:
            raise InvalidProxyLine(str(exc)) from exc
        info: Any = vars(self).get("proxy_protocol_info")
        if info and info["client_addr"] is None:
            self.proxy_protocol_info = None
        return rest

    def _parse_proxy_protocol_v1(self, unreader: Any, buf: bytearray) -> bytearray:
        while LINE_END not in buf:
            self.read_into(unreader, buf)
        line, _, rest = buf.partition(LINE_END)
        if line == UNKNOWN or line.startswith(UNKNOWN + b" "):
            return rest
        return super()._parse_proxy_protocol_v1(unreader, buf)  # type: ignore[no-any-return]

    def _parse_proxy_protocol_v2(self, unreader: Any, buf: bytearray) -> bytearray:
        while len(buf) < V2_HEAD_BYTES:
            self.read_into(unreader, buf)
        kind = buf[13]
        if buf[12] == V2_PROXY and kind in V2_FAMILIES_AND_PROTOCOLS and kind not in V2_SUPPORTED:
            buf[12] = V2_LOCAL
        return super()._parse_proxy_protocol_v2(unreader, buf)  # type: ignore[no-any-return]
