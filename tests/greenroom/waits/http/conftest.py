"""`requests` with its own adapter and with ours, in turn; and an upstream to ask.

Nothing is patched here: our waits are gevent's in any case, and the upstream lives in threads.
"""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.hub import Hub
from requests.adapters import HTTPAdapter

from greenroom.waits.http import pool
from greenroom.waits.http.adapter import Transport
from greenroom.waits.http.install import put_in_place
from greenroom.waits.stdlib import hub

from .upstream import Upstream

ADAPTERS = ("original", "ours")
# How long connections are used by whom, longer than a busy machine takes; tests of it move a clock.
SURE_SECONDS = 30.0
QUICK_SECONDS = 20.0


class Switch:
    """Has `requests` send through one adapter or the other."""

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.transport: Transport | None = None
        self.fell_back: list[str] = []

    def to(self, adapter: str, **settings: Any) -> Transport | None:
        self.undo()
        if adapter == "ours":
            original = HTTPAdapter.send

            def fall_back(own: HTTPAdapter, request: Any, **kwargs: Any) -> Any:
                self.fell_back.append(request.url)
                return original(own, request, **kwargs)

            chosen = {"connections": 50, "idle_seconds": 90.0, "age_seconds": 300.0, "tells_budget": True, **settings}
            self.transport = Transport(fall_back, **chosen)
            self.patch.setattr(pool, "SURE_SECONDS", SURE_SECONDS)
            self.patch.setattr(pool, "QUICK_SECONDS", QUICK_SECONDS)
            self.patch.setattr(pool, "QUIET_SECONDS", 0.0)  # else tests would have to wait; one of it has its own
            put_in_place(self.transport, lambda *what: self.patch.setattr(*what, raising=False))
        return self.transport

    def undo(self) -> None:
        self.patch.undo()
        if self.transport is not None and self.transport.pools is not None:
            self.transport.pools.close()
        self.transport = None


@pytest.fixture
def switch() -> Iterator[Switch]:
    made = Switch()
    yield made
    made.undo()


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, switch: Switch) -> str:
    """The test runs with both."""
    switch.to(request.param)
    return str(request.param)


@pytest.fixture
def ours(switch: Switch) -> Transport:
    transport = switch.to("ours")
    assert transport is not None
    return transport


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a request are ended when its budget is spent, as in a worker."""
    monkeypatch.setattr(Hub, "switch", hub.switch)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


@pytest.fixture
def tls_upstream(certificate: tuple[str, str]) -> Iterator[Callable[..., Upstream]]:
    """`tls_upstream()` starts one; `tls_upstream(asks=True)` one that wants a client's certificate."""
    made: list[Upstream] = []

    def start(*, asks: bool = False) -> Upstream:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificate[0])
        made.append(Upstream(context))
        return made[-1]

    yield start
    for upstream in made:
        upstream.close()
