"""Tracebacks that repeat become one counted line; those of another line or class are logged all the same."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greenroom.worker import log_floods
from greenroom.worker.log_floods import INTERVAL_SECONDS, MOST_ALIKE, Floods

from ..conftest import ManualClock
from .harness import Ours, serve


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, message: str, *values: Any) -> None:
        self.lines.append(message % values)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def floods(log: Log, clock: ManualClock) -> Floods:
    return Floods(log, clock.now)


def error_of(number: int) -> Exception:
    try:
        if number == 1:
            return ValueError(str(1 / 0))
        return ValueError(str(int("x")))
    except Exception as exc:
        return exc


def test_the_first_of_a_kind_are_logged_and_the_others_counted(floods: Floods, log: Log, clock: ManualClock) -> None:
    left_out = [floods.is_one_more(error_of(1)) for _ in range(MOST_ALIKE + 7)]

    clock.advance(INTERVAL_SECONDS - 0.1)
    floods.tell()
    told_early = list(log.lines)
    clock.advance(0.1)
    floods.tell()

    assert left_out == [False] * MOST_ALIKE + [True] * 7
    assert told_early == []
    (line,) = log.lines
    assert "the same 7 times more in 10 s, ZeroDivisionError at " in line
    assert __file__ in line


def test_another_error_is_another_kind(floods: Floods) -> None:
    for _ in range(MOST_ALIKE):
        floods.is_one_more(error_of(1))

    assert not floods.is_one_more(error_of(2))
    assert floods.is_one_more(error_of(1))


def test_each_interval_logs_the_first_anew(floods: Floods, log: Log, clock: ManualClock) -> None:
    for _ in range(MOST_ALIKE):
        floods.is_one_more(error_of(1))
    clock.advance(INTERVAL_SECONDS)
    floods.tell()

    assert not floods.is_one_more(error_of(1))
    assert log.lines == []  # nothing was left out


def test_the_end_of_the_worker_tells_what_is_counted(floods: Floods, log: Log) -> None:
    for _ in range(MOST_ALIKE + 1):
        floods.is_one_more(error_of(1))

    floods.tell(is_end=True)

    assert "the same 1 times more in 0 s" in log.lines[0]


def test_the_table_of_kinds_is_bounded(floods: Floods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_floods, "MOST_KINDS", 1)
    floods.is_one_more(error_of(1))

    assert not any(floods.is_one_more(error_of(2)) for _ in range(2 * MOST_ALIKE))


def failing_at_once(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    raise ZeroDivisionError("before the head")


def failing_midway(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [])
    yield b"some"
    raise ZeroDivisionError("after the head")


@pytest.mark.parametrize("application", [failing_at_once, failing_midway])
def test_a_flood_of_the_same_traceback_is_cut_short(application: Callable[..., Any]) -> None:
    with serve(Ours, application) as site:
        for _ in range(MOST_ALIKE + 5):
            site.ask(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        site.kind.serving.cycle.floods.tell(is_end=True)

        said = [line for line in site.records.at(logging.ERROR) if "Error handling request" in line]
    assert len(said) == MOST_ALIKE + 1
    assert "the same 5 times more" in said[-1]
