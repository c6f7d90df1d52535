"""Requests that end before their application has answered: the edge answers, whatever the application does later."""

import logging
import sys
import threading
from collections.abc import Iterable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from greenroom.errors import BudgetSpent
from greenroom.in_flight import OWN, Record, Wait

from .harness import Ours, serve, wait_until
from .slow import GET, Slow, Wsgi, simple


class Closing:
    """An answer that says whether it was closed, and how much of it was asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_closed = False

    def __iter__(self) -> "Closing":
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        return b"late"

    def close(self) -> None:
        self.is_closed = True


def with_write(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    write = start_response("200 OK", [])
    for _ in range(1000):
        write(b"late")
    return []


def with_hints(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    environ["wsgi.early_hints"]([("Link", "</style.css>")])
    return simple(environ, start_response)


def with_wrong_headers(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "4")])
    start_response("200 OK", [("Content-Length", "5")])
    return [b"much too late"]


def failing(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    try:
        raise RuntimeError("late")
    except RuntimeError:
        start_response("500 Internal Server Error", [], sys.exc_info())
    return [b"late"]


def test_what_is_behind_retries_that_use_up_the_grace_can_still_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "clean_up_seconds", 0.8)
    seen: list[str] = []

    def wait(seconds: float) -> None:
        with Wait("upstream", "", OWN):
            gevent.sleep(seconds)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            for _ in range(3):  # the first is ended with the budget, the others with a grace each
                try:
                    wait(60.0)
                except BudgetSpent:
                    seen.append("ended")
        finally:
            wait(0.001)
            seen.append("released")
        return simple(environ, start_response)

    with serve(Ours, app, settings={"request_budget_milliseconds": 50}) as site, site.connect() as client:
        client.send(GET)

        assert client.answer().status == 504
        wait_until(lambda: not site.kind.serving.in_flight, "the request is over")
    assert seen == ["ended", "ended", "ended", "released"]


def test_client_is_answered_at_the_deadline_though_its_application_goes_on() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET)
        answer, closed = client.answer(), client.rest()
        in_flight = len(site.kind.serving.in_flight)
        app.finish()

        assert (answer.status, answer.header("Connection"), closed) == (504, "close", b"")
        assert in_flight == 1
        wait_until(lambda: not site.kind.serving.in_flight, "the request is over")
        assert not site.kind.serving.connections
        assert site.kind.serving.spent_requests == 1


@pytest.mark.parametrize("answer", [simple, with_write, with_hints, with_wrong_headers, failing])
def test_what_is_answered_later_is_dropped_and_does_no_harm(answer: Wsgi) -> None:
    app = Slow(answer)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET)
        data = client.rest()
        app.finish()

        assert data.count(b"HTTP/1.1") == 1
        assert b"late" not in data
        assert app.error is None
        assert site.records.at(logging.ERROR) == []
        wait_until(lambda: not site.kind.serving.in_flight, "the request is over")


def test_late_iterable_is_closed_and_not_read_on() -> None:
    items = Closing()

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return items

    app = Slow(answer)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET)
        client.rest()
        app.finish()
        wait_until(lambda: items.is_closed, "it is closed")

        assert items.asked == 1


def test_line_and_access_log_say_504_once_and_no_value_of_the_query() -> None:
    app = Slow(simple)
    lines: list[str] = []
    with serve(Ours, app) as site, site.connect() as client:
        site.kind.serving.has_access_log = True
        site.kind.worker.log.access = lambda response, *_: lines.append(response.status)
        client.send(GET)
        client.rest()
        wait_until(lambda: lines, "it is logged, while the application goes on")
        app.finish()

        assert lines == ["504 Gateway Timeout"]
        assert len(site.records.at(logging.WARNING)) == 1
        assert site.records.at(logging.WARNING)[0].startswith(
            "GET /slow?token=…: the request's budget of 0.05 s is spent"
        )


def test_timeout_error_of_the_end_is_no_error_of_the_application_and_others_are() -> None:
    def waiting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/slow":
            raise deadline_error()
        raise RuntimeError("its own")

    def deadline_error() -> BaseException:
        try:
            with Wait("lock", "", OWN):
                Event().wait()
        except BudgetSpent as exc:
            return exc
        raise AssertionError("nothing ended the wait")

    with serve(Ours, waiting) as site, site.connect() as client:
        client.send(GET)
        assert client.rest().startswith(b"HTTP/1.1 504 ")
        wait_until(lambda: not site.kind.serving.in_flight, "the request is over")
        assert site.records.at(logging.ERROR) == []
    app = Slow(waiting)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"/slow?token=1", b"/other"))
        client.rest()
        app.finish()
        assert site.records.at(logging.ERROR) == ["Error handling request GET /other"]


def test_head_is_answered_without_a_body() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"GET", b"HEAD"))
        data = client.rest()
        app.finish()

    assert data.startswith(b"HTTP/1.1 504 ")
    assert data.endswith(b"\r\n\r\n")


def test_application_that_waits_for_its_body_is_woken_and_its_client_told() -> None:
    errors: list[BaseException] = []

    def reading(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except OSError as exc:
            errors.append(exc)
        start_response("400 Bad Request", [("Content-Length", "0")])
        return []

    with serve(Ours, reading) as site, site.connect() as client:
        client.send(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 10\r\n\r\nsome"))
        answer = client.answer()
        wait_until(lambda: not site.kind.serving.in_flight, "the request is over")

        assert answer.status == 408
        assert len(errors) == 1
        assert site.records.at(logging.WARNING) == []


def test_body_that_is_read_after_the_answer_is_an_error_at_once() -> None:
    def reading(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with pytest.raises(OSError, match="the request was answered before"):
            environ["wsgi.input"].read()
        return simple(environ, start_response)

    app = Slow(reading)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 10\r\n\r\nsome"))
        client.answer()
        app.finish()

    assert app.error is None


def test_request_that_waited_too_long_in_line_never_begins() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(GET.replace(b"50", b"0"))
        data = client.rest()

        assert data.startswith(b"HTTP/1.1 504 ")
        assert not app.is_over
        assert site.kind.serving.in_flight == {}


@pytest.mark.parametrize("is_early", [True, False])
def test_thread_that_writes_and_the_edge_never_both_answer(is_early: bool) -> None:
    """A real thread answers, before the deadline or after it."""
    told = threading.Event()

    def threaded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def work() -> None:
            told.wait(10)
            start_response("200 OK", [("Content-Length", "4")])(b"done")

        gevent.get_hub().threadpool.spawn(work).get()
        return []

    with serve(Ours, threaded) as site, site.connect() as client:
        client.send(GET if not is_early else GET.replace(b"50", b"5000"))
        if is_early:
            told.set()
        answer = client.answer()
        told.set()
        wait_until(lambda: not site.kind.serving.in_flight, "the request is over")

    assert (answer.status, answer.body == b"done") == ((200, True) if is_early else (504, False))


def test_stop_answers_503_to_who_was_not_answered() -> None:
    app = Slow(simple)
    with serve(Ours, app) as site, site.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: site.kind.serving.in_flight, "it runs")
        site.kind.serving.cut_all(1.0)
        data = client.rest()
        app.finish()

    assert data.startswith(b"HTTP/1.1 503 ")
