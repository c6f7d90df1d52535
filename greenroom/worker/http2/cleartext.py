"""HTTP/2 without TLS, as gunicorn's http2_cleartext says: for proxies that speak it to the servers behind them.

Only to peers whose forwarding headers count, as gunicorn has it. A request that asks for HTTP/2 (`Upgrade: h2c`) is
answered as one of HTTP/1.1 where its body has not come with its head: a server may decline the upgrade.
"""

from typing import TYPE_CHECKING

from gunicorn.http.errors import InvalidH2CPreface
from gunicorn.http2 import negotiation

from ...gunicorns_parts import Config
from ..request import ClientRequest
from .heads import Fields

if TYPE_CHECKING:
    from ..connection import Connection
    from ..incoming import Incoming

# Fields about the connection, and not about the request.
ITS_OWN = ("CONNECTION", "UPGRADE", "HTTP2-SETTINGS")


class Cleartext:
    """How a connection of one worker may become one of HTTP/2. Runs on: hub."""

    def __init__(self, cfg: Config) -> None:
        self.has_prior_knowledge = cfg.http2_cleartext in ("prior-knowledge", "both")
        self.has_upgrade = cfg.http2_cleartext in ("upgrade", "both")
        self.is_strict = negotiation.mismatch_is_error(cfg)

    def take_preface(self, connection: "Connection") -> bool:
        """Go on with HTTP/2 if that is what the first bytes of a connection are.

        True as well while that is not known, and where they have to be and are not.
        """
        if not connection.is_peer_trusted or not self.has_prior_knowledge:
            return False
        head = bytes(connection.buffer)
        match = negotiation.preface_match(head)
        if match == negotiation.MATCH:
            connection.become_http2().begin(head)
        elif match == negotiation.PARTIAL:
            connection.wait_for_more()
        elif self.is_strict:
            connection.serving.refuse(connection, InvalidH2CPreface(head[: len(negotiation.H2C_PREFACE)]))
        else:
            return False
        return True

    def take_upgrade(self, connection: "Connection", request: ClientRequest, incoming: "Incoming") -> bool:
        """Go on with HTTP/2 if `request` asks for that."""
        settings = negotiation.upgrade_settings(request) if self.has_upgrade else None
        if settings is None or not connection.is_peer_trusted or not incoming.is_here():
            return False
        body = incoming.body.read()
        received = incoming.unreader.take_buffered()
        if not connection.wire.try_send(negotiation.UPGRADE_101):
            connection.close(reset=True)
            return True
        connection.become_http2().begin_upgraded(settings, fields_of(request), body, received)
        return True


def fields_of(request: ClientRequest) -> Fields:
    fields = [(":method", request.method), (":path", request.uri), (":scheme", request.scheme)]
    fields += [(":authority", value) for name, value in request.headers if name == "HOST"]
    fields += [(name.lower(), value) for name, value in request.headers if name not in (*ITS_OWN, "HOST")]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
