"""The trace that a request came with goes to the upstreams it asks, as it came."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from greenroom import clock, in_flight
from greenroom.waits.http.adapter import Transport

from .upstream import Upstream

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def request_with(**environ: str) -> Iterator[None]:
    current = in_flight.Record(clock.now())
    current.environ = {f"HTTP_{name}": value for name, value in environ.items()}
    token = in_flight.CURRENT.set(current)
    try:
        yield
    finally:
        in_flight.CURRENT.reset(token)


def traced(upstream: Upstream, **headers: str) -> dict[str, str]:
    fields = requests.get(upstream.url, headers=headers, timeout=30).json()["fields"]
    return {name: fields[name] for name in ("traceparent", "tracestate") if name in fields}


@pytest.fixture(autouse=True)
def _ours(ours: Transport) -> None:
    """All of these are of our adapter."""


def test_what_came_is_passed_on(upstream: Upstream) -> None:
    with request_with(TRACEPARENT=PARENT, TRACESTATE="vendor=a:b,other=1"):
        assert traced(upstream) == {"traceparent": PARENT, "tracestate": "vendor=a:b,other=1"}
    assert traced(upstream) == {}


def test_an_application_that_traces_by_itself_is_left_alone(upstream: Upstream) -> None:
    own = PARENT.replace("b7ad", "aaaa")

    with request_with(TRACEPARENT=PARENT, TRACESTATE="vendor=1"):
        assert traced(upstream, traceparent=own) == {"traceparent": own}


@pytest.mark.parametrize("hostile", ["", "00-xyz", PARENT + "\r\nX-Evil: 1", PARENT.upper(), PARENT + "-" + "x" * 5000])
def test_what_is_no_trace_goes_nowhere(hostile: str, upstream: Upstream) -> None:
    with request_with(TRACEPARENT=hostile, TRACESTATE="vendor=1"):
        assert traced(upstream) == {}
    with request_with(TRACEPARENT=PARENT, TRACESTATE="a=1\r\nX-Evil: 1"):
        assert traced(upstream) == {"traceparent": PARENT}
