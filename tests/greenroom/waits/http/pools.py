"""What tests of several kinds ask of a pool of connections."""

import time
from typing import Any

import gevent

from greenroom.waits.http.adapter import Transport

from .upstream import Received

SHORT_SECONDS = 0.15
SOON = 20.0


def pools_of(transport: Transport) -> Any:
    assert transport.pools is not None
    return transport.pools


def origin_of(transport: Transport) -> Any:
    (origin,) = pools_of(transport).origins.values()
    return origin


def wait_until(condition: Any) -> None:
    give_up_at = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < give_up_at
        gevent.sleep(0.005)


def hang(sock: Any, request: Received) -> bool:
    sock.recv(1)
    return False
