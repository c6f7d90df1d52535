"""A mounted `Retry` does over our pools what it does over urllib3's: as often, with the same errors and words."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from greenroom import deadline
from greenroom.waits.http.adapter import BUDGET_HEADER, Transport

from .conftest import ADAPTERS, Switch
from .pools import SOON, hang
from .upstream import Received, Script, Upstream, answer, sends

BUSY = answer(b"busy", "503 Service Unavailable")
LATER = answer(b"", "503 Service Unavailable", "Retry-After: 0")


def one_after_the_other(*answers: bytes | None) -> Callable[[], Script]:
    """A script that gives each answer once, the last one again and again. None: closes the connection."""

    def begin() -> Script:
        left = list(answers)

        def script(sock: Any, request: Received) -> bool:
            said = left.pop(0) if len(left) > 1 else left[0]
            if said is not None:
                sock.sendall(said)
            return said is not None

        return script

    return begin


def retry(**options: Any) -> Retry:
    return Retry(**{"total": 3, "backoff_factor": 0, "status_forcelist": [503], **options})


CASES: dict[str, tuple[Callable[[], Script], Retry, str]] = {
    "busy twice": (one_after_the_other(BUSY, BUSY, answer(b"ok")), retry(), "GET"),
    "busy for good": (one_after_the_other(BUSY), retry(), "GET"),
    "busy for good, no error": (one_after_the_other(BUSY), retry(raise_on_status=False), "GET"),
    "busy, not for POST": (one_after_the_other(BUSY, answer(b"ok")), retry(), "POST"),
    "busy, for POST too": (one_after_the_other(BUSY, answer(b"ok")), retry(allowed_methods=None), "POST"),
    "says when": (one_after_the_other(LATER, answer(b"ok")), retry(status_forcelist=[]), "GET"),
    "closed twice": (one_after_the_other(None, None, answer(b"ok")), retry(), "GET"),
    "closed for good": (one_after_the_other(None), retry(total=2), "GET"),
    "closed, not for POST": (one_after_the_other(None, answer(b"ok")), retry(), "POST"),
    "closed, no reading again": (one_after_the_other(None, answer(b"ok")), retry(read=0), "GET"),
    "closed, then busy": (one_after_the_other(None, BUSY, answer(b"ok")), retry(total=2), "GET"),
    "not at all": (one_after_the_other(None), Retry(False), "GET"),
    "an answer in pieces": (lambda: sends(BUSY[:-2], BUSY[-2:], pause_seconds=0.01), retry(total=1), "GET"),
    "silent": (lambda: hang, retry(total=1), "GET"),
}


def outcome(url: str, retries: Retry, method: str, read_seconds: float = SOON) -> Any:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retries))
        try:
            body = b"body" if method == "POST" else None
            response = session.request(method, url, data=body, timeout=(SOON, read_seconds))
        except requests.RequestException as exc:
            return type(exc), re.sub("0x[0-9a-f]+", "", str(exc)), type(getattr(exc.args[0], "reason", None))
        left: Any = response.raw.retries
        return response.status_code, response.content, left.total, left.read, len(left.history), response.raw.url


@pytest.mark.parametrize("name", CASES)
def test_retries_are_made_as_ever(
    name: str, switch: Switch, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    begin, retries, method = CASES[name]
    seen = {}

    for adapter in ADAPTERS:
        switch.to(adapter)
        upstream.requests.clear()
        caplog.clear()
        said = outcome(upstream.on("/", begin()), retries, method, 0.2 if name == "silent" else SOON)
        logged = [(each.name, each.levelname, re.sub("0x[0-9a-f]+", "", each.getMessage())) for each in caplog.records]
        seen[adapter] = said, [each.head for each in upstream.requests], logged

    assert seen["ours"] == seen["original"]
    assert not switch.fell_back


def test_what_cannot_be_connected_to_is_tried_as_often(
    adapter: str, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.close()

    error, words, reason = outcome(upstream.url, retry(total=2), "GET")

    assert error is requests.ConnectionError
    assert "Max retries exceeded with url: /" in words
    assert reason.__name__ == "NewConnectionError"
    assert caplog.text.count("after connection broken by 'NewConnectionError") == 2


def test_retries_share_the_pool_with_everybody(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", one_after_the_other(BUSY, BUSY, answer(b"ok"))())
    requests.get(upstream.url + "/other")

    assert outcome(url, retry(), "GET")[:2] == (200, b"ok")
    assert upstream.connections == 1


def test_a_file_is_sent_again_from_where_it_began(adapter: str, upstream: Upstream) -> None:
    url = upstream.on("/", one_after_the_other(BUSY, answer(b"ok"))())

    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry()))
        assert session.put(url, data=io.BytesIO(b"body")).ok

    assert [each.body for each in upstream.requests] == [b"body", b"body"]


@pytest.mark.usefixtures("bounded")
def test_retries_end_with_the_budget_and_each_tells_what_is_left(ours: Transport, upstream: Upstream) -> None:
    url = upstream.on("/", sends(BUSY[:-2], BUSY[-2:], pause_seconds=0.02))

    with requests.Session() as session, deadline.budget(0.3):
        session.mount("http://", HTTPAdapter(max_retries=retry(total=10_000)))
        with pytest.raises(requests.ReadTimeout, match="budget of 0.3 s is spent"):
            session.get(url)

    told = [int(each.fields[BUDGET_HEADER.lower()]) for each in upstream.requests]
    assert told == sorted(told, reverse=True)
    assert told[0] > told[-1]
