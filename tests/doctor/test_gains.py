"""What a route gains: what was measured, and what can't be so."""

import io
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from greenroom.doctor import driving, gains
from greenroom.doctor.driving import Seen
from greenroom.doctor.examination import Examination, Options, Report
from greenroom.doctor.output.terminal import Terminal
from greenroom.doctor.plan import Route
from greenroom.doctor.queued import ran_seconds
from greenroom.doctor.server import Answer
from greenroom.insight.account import STATES


def gain(sync: float, ours: float, **seconds: float) -> str:
    states = [seconds.get(name, 0.0) for name in STATES]
    seen = Seen(Route("GET /", "/"), alone=[Answer(200, 0.005)], states=states)
    measured = {"sync": gains.Measured(sync), "greenroom": gains.Measured(ours)}
    return gains.Gain(seen, measured).sentence()


def test_a_route_that_waits_for_nothing_gains_nothing_whatever_the_machine_did_meanwhile() -> None:
    assert gain(100.0, 400.0, cpu=0.004) == "as many requests as one sync worker: it hardly waits"
    assert gain(100.0, 400.0, cpu=0.004, upstream=0.1) == "4.0 times the requests of one sync worker"


def test_a_route_that_can_not_gain_by_its_waits_does_not_whatever_was_measured() -> None:
    assert gain(10.0, 16.0, cpu=0.05, other=0.008) == "computes 86% of its time: nothing to gain"
    assert gain(10.0, 16.0, cpu=0.005, other=0.0008) == "as many requests as one sync worker: it hardly waits"


def test_what_the_machine_took_is_no_wait() -> None:
    before = {"seconds": [0.0] * len(STATES), "loop": {"stolen_seconds": 1.0}}
    after = {"seconds": [0.1] * len(STATES), "loop": {"stolen_seconds": 1.08}}

    states = dict(zip(STATES, driving._states(before, after), strict=True))

    assert round(states["other"], 3) == 0.02
    assert states["upstream"] == 0.1


def test_a_route_has_computed_no_longer_than_the_workers_thread_ran() -> None:
    seconds = [0.1] * len(STATES)
    before: dict[str, Any] = {"seconds": [0.0] * len(STATES), "ran_seconds": 3.0}

    assert driving._states(before, {"seconds": seconds, "ran_seconds": 3.02})[0] == pytest.approx(0.02)
    assert driving._states(before, {"seconds": seconds, "ran_seconds": 4.0})[0] == 0.1
    assert driving._states(before, {"seconds": seconds, "ran_seconds": 0.0})[0] == 0.1
    assert ran_seconds(os.getpid()) > 0 or not Path("/proc/self/schedstat").exists()


def test_no_more_clients_compute_than_have_their_turn_while_a_route_is_measured() -> None:
    clients = set()

    def get(*asked: object) -> Answer:
        clients.add(threading.get_ident())
        time.sleep(0.2)
        return Answer(200, 0.2)

    states = [0.1 if name == "cpu" else 0.0 for name in STATES]
    seen = Seen(Route("GET /", "/"), alone=[Answer(200, 0.1)], states=states)

    gains.measure(cast(Any, SimpleNamespace(kind="greenroom", get=get)), seen, 0.35)

    assert len(clients) == 3


def test_a_route_that_loses_is_not_called_as_good() -> None:
    assert gain(100.0, 80.0, cpu=0.004) == "as many requests as one sync worker: it hardly waits"
    assert gain(1000.0, 350.0, cpu=0.004) == "fewer requests than one sync worker: 35%"


def test_a_route_is_measured_when_what_others_left_is_done() -> None:
    answers = [Answer(200, seconds) for seconds in (0.4, 0.001, 0.2, 0.001, 0.001, 0.001, 0.9)]
    gains.settle(cast(Any, SimpleNamespace(get=lambda path, timeout: answers.pop(0))), 60.0)

    assert [one.seconds for one in answers] == [0.9]


def test_what_only_the_first_request_computes_is_not_what_the_route_does() -> None:
    others = [0.0] * (len(STATES) - 1)
    seen = Seen(Route("GET /", "/"), alone=[Answer(200, 0.02)] * 4, states=[0.142, *others])

    assert gains.computes(seen)
    seen.first_states = [0.13, *others]
    assert round(seen.cpu_seconds, 4) == 0.004
    assert not gains.computes(seen)


def test_nothing_is_said_of_the_gains_of_a_route_that_fails() -> None:
    seen = Seen(Route("GET /", "/"), alone=[Answer(500, 0.02)], states=[0.02] + [0.0] * (len(STATES) - 1))

    gain = gains.Gain(seen)
    terminal = io.StringIO()
    Terminal(terminal, has_colour=False).show(Report("ready", routes=gains.as_list({"/": gain})))

    assert gain.sentence() == "not measured"
    assert "Gains" not in terminal.getvalue()


def test_routes_whose_gain_is_unknown_are_counted() -> None:
    routes = [
        {"route": f"GET /{number}", "rates": {}, "gains": gains.NOT_MEASURED if number else "computes 90% of its time"}
        for number in range(4)
    ]
    terminal = io.StringIO()

    Terminal(terminal, has_colour=False).show(Report("ready", routes=routes))

    assert terminal.getvalue().splitlines()[-2:] == ["  GET /0: computes 90% of its time", "  3 more: not measured"]


def test_a_route_that_one_sync_worker_never_answers_is_told_so() -> None:
    seen = Seen(Route("GET /", "/"), alone=[Answer(200, 0.02)], states=[0.0] * len(STATES))
    measured = {"sync": gains.Measured(errors=3), "greenroom": gains.Measured(80.0)}

    assert gains.Gain(seen, measured).sentence() == "one sync worker answered none of them in that time"


def test_a_difference_from_sync_for_which_there_was_no_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(Route("GET /", "/", place="shop.py:3"), alone=[Answer(200, 0.02, b"green")] * 2)
    gain = gains.Gain(seen, sync_answers=[Answer(200, 0.02, b"plain")] * 2)
    examination = Examination(Options("shop:app", seconds=0.0), lambda words: None)

    assert list(examination.differing(cast(Any, None), None, [gain])) == []
    assert [(one.what, "otherwise than under sync" in one.why) for one in examination.report.skipped] == [
        ("GET /", True)
    ]
