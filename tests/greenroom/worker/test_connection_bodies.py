"""Bodies of requests: 100 Continue, bodies that nobody reads, are cut short or only drip."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import pytest

from .harness import BOTH, CONTINUE, Ours, Site, serve, turn
from .reading import GET, POST, App

# --- 100 Continue


EXPECTING = POST % 5 + b"Expect: 100-continue\r\n\r\n"


def test_continue_is_sent_when_the_application_asks_for_the_body(ours: Site, app: App) -> None:
    with ours.connect() as client:
        client.send(EXPECTING)
        assert client.until(b"\r\n\r\n") == CONTINUE
        client.send(b"abcde" + GET % 1)

        assert client.answer().body == b"/read:abcde"
        assert client.answer().body == b"/1:"


def test_continue_is_not_sent_by_an_application_that_does_not_read(ours: Site, app: App) -> None:
    with ours.connect() as client:
        client.send(EXPECTING.replace(b"/read", b"/ignore"))

        answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n/ignore:")


@pytest.mark.parametrize("data", [EXPECTING + b"abcde", EXPECTING.replace(b"5", b"0"), EXPECTING + b"ab"])
def test_continue_is_not_sent_to_who_did_not_wait(ours: Site, data: bytes) -> None:
    with ours.connect() as client:
        client.send(data)
        turn(5)
        client.send(b"cde" if data.endswith(b"ab") else b"")
        client.send(GET % 1)

        assert client.until(b"/read:").startswith(b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\n")
        assert client.until(b"/1:")


def test_continue_is_never_sent_after_the_answer_began(ours: Site) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"first"
        yield environ["wsgi.input"].read()

    ours.kind.worker.wsgi = application
    with ours.connect() as client:
        client.send(EXPECTING)
        client.until(b"first\r\n")
        client.send(b"abcde")
        answer = client.rest()

    assert CONTINUE not in answer
    assert b"abcde" in answer


def test_other_expectations_are_refused(ours: Site) -> None:
    assert ours.ask(b"GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n").startswith(b"HTTP/1.1 417 ")


# --- bodies


@BOTH
def test_unread_body_is_discarded_and_the_connection_kept(kind: Any, app: App) -> None:
    with serve(kind, app) as site, site.connect() as client:
        client.send(POST.replace(b"read", b"some") % 50_000 + b"\r\n" + b"a" * 50_000 + GET % 1)

        assert client.answer().body == b"/some:aaa"
        assert client.answer().body == b"/1:"


def test_large_unread_body_ends_the_connection_without_losing_the_answer(ours: Site) -> None:
    with ours.connect() as client:
        client.send(POST.replace(b"read", b"some") % 50_000_000 + b"\r\n")
        for _ in range(40):
            client.send(b"a" * 100_000)

        assert client.answer().body == b"/some:aaa"


def test_body_that_an_application_replaced_in_the_environ_is_still_discarded(ours: Site) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"] = None
        start_response("204 No Content", [])
        return []

    ours.kind.worker.wsgi = application

    assert ours.ask(POST % 5 + b"\r\nabcde" + GET % 1).count(b"204 No Content") == 2


def test_body_cut_short_is_an_error_and_not_a_short_body(ours: Site, app: App) -> None:
    answer = ours.ask(POST % 5 + b"\r\nab")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert isinstance(app.errors[0], OSError)
    assert ours.records.at(logging.ERROR) == []


def test_slow_body_ends_in_408(app: App) -> None:
    with serve(Ours, app, settings={"body_timeout_seconds": 1}) as site, site.connect() as client:
        client.send(POST % 5 + b"\r\nab")

        answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert app.running == 0
    assert isinstance(app.errors[0], TimeoutError)


def test_body_that_only_drips_is_too_slow_as_well(app: App) -> None:
    with serve(Ours, app, settings={"body_timeout_seconds": 1}) as site, site.connect() as client:
        client.send(POST % 1000 + b"\r\n")
        began = time.monotonic()
        while app.errors == [] and time.monotonic() < began + 10:
            client.send(b"a")
            gevent.sleep(0.1)

        assert client.rest().startswith(b"HTTP/1.1 408 ")
