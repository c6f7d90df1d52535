"""Tools that hook http.client and urllib3 see every request, as long as they are there."""

import http.client
import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import requests
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.poolmanager

from greenroom.waits.http.adapter import Transport
from greenroom.waits.http.hooked import Hooks

from .conftest import Switch
from .upstream import Upstream

HTTPConnection: Any = http.client.HTTPConnection
HTTPConnectionPool: Any = urllib3.connectionpool.HTTPConnectionPool
CALLS: dict[str, Callable[[str], Any]] = {
    "bare": requests.get,
    "post": lambda url: requests.post(url, data="x"),
    "session": lambda url: requests.Session().get(url, headers={"A": "b"}),
}


class Wrapper:
    """Says that it is equal to what it wraps, as wrapt's do."""

    def __init__(self, wrapped: Any, calls: list[str]) -> None:
        self.wrapped, self.calls = wrapped, calls

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else lambda *args, **kwargs: self(instance, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("seen")
        return self.wrapped(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return bool(self.wrapped == other)

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def replaced(owner: Any, name: str) -> Iterator[list[str]]:
    calls: list[str] = []
    with mock.patch.object(owner, name, Wrapper(getattr(owner, name), calls)):
        yield calls


@contextmanager
def another_class(owner: Any, name: str) -> Iterator[list[str]]:
    calls: list[str] = []

    class Other(getattr(owner, name)):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            calls.append("seen")
            super().__init__(*args, **kwargs)

    with mock.patch.object(owner, name, Other):
        yield calls


@contextmanager
def shown() -> Iterator[list[str]]:
    """The lines that `debuglevel` prints."""
    calls: list[str] = []
    with (
        mock.patch.object(HTTPConnection, "debuglevel", 1),
        mock.patch("builtins.print", side_effect=lambda *words: calls.append("seen")),
    ):
        yield calls


HOOKS: dict[str, Callable[[], Any]] = {
    "putrequest": lambda: replaced(HTTPConnection, "putrequest"),
    "send": lambda: replaced(HTTPConnection, "send"),
    "getresponse": lambda: replaced(HTTPConnection, "getresponse"),
    "request": lambda: replaced(urllib3.connection.HTTPConnection, "request"),
    "urlopen": lambda: replaced(HTTPConnectionPool, "urlopen"),
    "_make_request": lambda: replaced(HTTPConnectionPool, "_make_request"),
    "ConnectionCls": lambda: another_class(HTTPConnectionPool, "ConnectionCls"),
    "connection_from_host": lambda: replaced(urllib3.poolmanager.PoolManager, "connection_from_host"),
    "PoolManager": lambda: another_class(requests.adapters, "PoolManager"),
    "debuglevel": shown,
}


def test_nothing_is_taken_for_a_hook(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert not Hooks().are_there()

    assert not caplog.records


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("call", CALLS)
def test_what_is_hooked_is_gone_through(call: str, hook: str, switch: Switch, upstream: Upstream) -> None:
    switch.to("ours")
    with HOOKS[hook]() as calls:
        assert CALLS[call](upstream.url).ok
        assert len(switch.fell_back) == 1
    assert set(calls) == {"seen"}

    assert CALLS[call](upstream.url).ok
    assert len(switch.fell_back) == 1


def test_a_hook_that_came_first_is_gone_through(switch: Switch, upstream: Upstream) -> None:
    with HOOKS["putrequest"]() as calls:
        switch.to("ours")
        for call in CALLS.values():
            assert call(upstream.url).ok

    assert len(calls) == len(switch.fell_back) == len(CALLS)


def test_a_hook_is_one_line_in_the_log(ours: Transport, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "greenroom"), HOOKS["putrequest"](), HOOKS["send"]():
        for _ in range(3):
            requests.get(upstream.url)

    (line,) = [each.getMessage() for each in caplog.records if "requests sends its own way" in each.getMessage()]
    assert re.match(
        r"http.client.HTTPConnection was changed by somebody, .*putrequest \(a .*test_hooked.Wrapper\)", line
    )


@pytest.mark.parametrize("call", CALLS)
def test_sentrys_trace_reaches_the_upstream(call: str, ours: Transport, upstream: Upstream) -> None:
    sentry_sdk: Any = pytest.importorskip("sentry_sdk")
    stdlib = pytest.importorskip("sentry_sdk.integrations.stdlib")

    class Nowhere(sentry_sdk.transport.Transport):  # type: ignore[misc]
        def capture_envelope(self, envelope: Any) -> None:
            """Sent to nobody."""

    with (
        mock.patch.object(HTTPConnection, "putrequest", HTTPConnection.putrequest),
        mock.patch.object(HTTPConnection, "getresponse", HTTPConnection.getresponse),
        sentry_sdk.isolation_scope() as scope,
    ):
        stdlib._install_httplib()
        client = sentry_sdk.Client(
            "http://a@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Nowhere, default_integrations=False,
            integrations=[stdlib.StdlibIntegration()], auto_enabling_integrations=False,
        )  # fmt: skip
        scope.set_client(client)
        with sentry_sdk.start_transaction(name="a") as transaction:
            CALLS[call](upstream.url)
        client.close()

    assert upstream.requests[0].fields["sentry-trace"].startswith(transaction.trace_id)
    assert f"sentry-trace_id={transaction.trace_id}" in upstream.requests[0].fields["baggage"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["requests.RequestsInstrumentor", "urllib3.URLLib3Instrumentor"])
def test_opentelemetrys_trace_reaches_the_upstream(name: str, call: str, ours: Transport, upstream: Upstream) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    module, _, kind = name.partition(".")
    instrumentor = getattr(pytest.importorskip(f"opentelemetry.instrumentation.{module}"), kind)()
    provider = trace.TracerProvider()
    instrumentor.instrument(tracer_provider=provider)
    try:
        with provider.get_tracer("test").start_as_current_span("a") as span:
            CALLS[call](upstream.url)
    finally:
        instrumentor.uninstrument()

    assert f"{span.get_span_context().trace_id:032x}" in upstream.requests[0].fields["traceparent"]


def test_vcrpy_records_and_plays(ours: Transport, upstream: Upstream, tmp_path: Any) -> None:
    vcr = pytest.importorskip("vcr")
    assert "urllib3" in sys.modules
    answers = []
    for _ in range(2):
        with vcr.use_cassette(str(tmp_path / "cassette.yaml")):
            answers.append(requests.get(upstream.url + "/a").json()["target"])

    assert answers == ["/a", "/a"]
    assert len(upstream.requests) == 1
