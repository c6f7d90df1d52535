"""Header fields of answers: nothing that ends a header, nothing for clients that must not know."""

import json
import re
from typing import Any

import pytest

from greenroom.in_flight import CLIENT_LEFT, Wait
from greenroom.insight import timing
from greenroom.insight.account import CPU, STATES, Account
from greenroom.insight.observer import COUNT_AT_ONCE, Insight
from greenroom.insight.recent import Ring
from greenroom.insight.routes import MOST_ROUTES, Routes
from greenroom.insight.timing import Ids

from .accounts import wait_in


class Response:
    status: Any = "200 OK"
    sent = 12


class Rule:
    def __init__(self, rule: str) -> None:
        self.rule = rule


class FlaskRequest:
    def __init__(self, rule: str | None) -> None:
        self.url_rule = None if rule is None else Rule(rule)


def finished(clock: Any, environ: dict[str, Any] | None = None, **seconds: float) -> Account:
    account = Account(clock.now())
    account.environ = environ or {}
    account.id = "id-1"
    for state, amount in seconds.items():
        account.seconds[STATES.index(state)] = amount
        clock.advance(amount)
        account.has_waited |= state not in ("cpu", "ready")
    account.since = account.ended = clock.now()
    return account


def test_server_timing_adds_up_to_its_total(clock: Any) -> None:
    account = finished(clock, cpu=0.0102, ready=0.001, upstream=0.3, query=0.0123)
    account.hosts = {"a.example:443": 0.2, "b.example:443": 0.1}

    header = timing.server_timing(account, clock.now)

    assert header == (
        'cpu;dur=10.2, ready;dur=1.0, upstream;desc="a.example:443";dur=200.0, '
        'upstream;desc="b.example:443";dur=100.0, '
        "query;dur=12.3, total;dur=323.5"
    )


@pytest.mark.parametrize("host", ['evil"\r\nSet-Cookie: a=b', "é.example", "a, b;dur=1", "x" * 500, "\\", "\0"])
def test_host_that_an_application_made_up_ends_no_header(clock: Any, host: str) -> None:
    account = finished(clock, upstream=0.1)
    account.hosts = {host: 0.1}

    header = timing.server_timing(account, clock.now)

    assert re.fullmatch(r'upstream;desc="[A-Za-z0-9.:_\[\]-]{1,60}";dur=100\.0, total;dur=100\.0', header)


def test_many_hosts_are_few_in_the_header_and_none_is_missing_in_the_sum(clock: Any) -> None:
    account = finished(clock, upstream=2.0)
    account.hosts = {f"host-{number}": 0.1 for number in range(20)}

    parts = timing.server_timing(account, clock.now).split(", ")

    assert len(parts) == timing.MOST_HOSTS + 2
    assert sum(float(part.rpartition("=")[2]) for part in parts[:-1]) == pytest.approx(2000.0)


def test_what_is_under_way_counts(clock: Any) -> None:
    account = Account(clock.now())
    wait_in(account, Wait("upstream"))
    clock.advance(0.25)

    assert timing.server_timing(account, clock.now) == "upstream;dur=250.0, total;dur=250.0"


@pytest.mark.parametrize(
    ("setting", "is_peer_trusted", "environ", "may"),
    [
        ("off", True, {}, False),
        ("trusted", True, {}, True),
        ("trusted", False, {}, False),
        ("trusted", True, {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}, False),
        ("trusted", True, {"HTTP_FORWARDED": "for=203.0.113.9"}, False),
        ("all", False, {"HTTP_X_FORWARDED_FOR": "203.0.113.9"}, True),
    ],
)
def test_who_may_see_the_times(setting: str, is_peer_trusted: bool, environ: dict[str, str], may: bool) -> None:
    assert timing.may_see_timing(setting, environ, is_peer_trusted=is_peer_trusted) is may


def test_ids_are_made_for_those_who_must_not_choose_them() -> None:
    ids = Ids("life")
    environ = {"HTTP_X_REQUEST_ID": "chosen"}

    assert ids.of(environ, is_peer_trusted=False) == "life-1"
    assert environ[timing.ID_KEY] == "life-1"
    assert ids.of(environ, is_peer_trusted=True) == "chosen"
    assert ids.of({}, is_peer_trusted=True) == "life-2"


def test_two_workers_never_make_the_same_id() -> None:
    assert Ids().of({}, is_peer_trusted=True) != Ids().of({}, is_peer_trusted=True)


def test_id_of_the_applications_own_is_not_doubled(clock: Any) -> None:
    account = finished(clock, cpu=0.1)

    assert timing.head_fields(account, [("x-request-ID", "own")], has_timing=False) == []
    assert timing.head_fields(account, [("Content-Type", "x")], has_timing=False) == [("X-Request-ID", "id-1")]


def test_access_line_is_one_line_of_json_without_the_query(clock: Any) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/a\u2028b?token=secret",
        "HTTP_USER_AGENT": 'x"\r\n}',
        "HTTP_TRACEPARENT": "not a trace",
        "werkzeug.request": FlaskRequest("/<name>"),
    }
    account = finished(clock, environ, cpu=0.1, upstream=0.2)
    account.hosts = {"a.example:443": 0.2}
    account.answer = Response()

    text = timing.access_line(account, environ, Response())

    assert "\n" not in text
    assert "secret" not in text
    line = json.loads(text)
    assert line["route"] == "/<name>"
    assert line["status"] == 200
    assert "trace_id" not in line
    assert sum(line[f"{state}_seconds"] for state in STATES) == pytest.approx(line["total_seconds"])


@pytest.mark.parametrize(("status", "number"), [("404 NOT FOUND", 404), (None, 500), (204, 204)])
def test_status_of_whatever_was_answered(clock: Any, status: Any, number: int) -> None:
    account = finished(clock)
    account.answer = Response()
    account.answer.status = status

    assert timing.status_of(account) == number


def test_nobody_was_answered_who_had_left(clock: Any) -> None:
    account = finished(clock)
    account.answer = Response()
    account.answer.status, account.cut_reason = None, CLIENT_LEFT

    assert timing.status_of(account) == 0


def test_routes_are_patterns_and_never_paths(clock: Any) -> None:
    routes = Routes()
    for number in range(100):
        routes.add(finished(clock, {"PATH_INFO": f"/{number}", "werkzeug.request": FlaskRequest(None)}, cpu=0.001), 404)
    routes.add(finished(clock, {"PATH_INFO": "/"}, cpu=0.001), 200)  # no Werkzeug
    routes.add(finished(clock, {"werkzeug.request": FlaskRequest("/users/<id>")}, cpu=0.001), 200)

    assert set(routes.by_pattern) == {"other", "/users/<id>"}
    assert routes.by_pattern["other"].as_dict()["statuses"] == {"2xx": 1, "4xx": 100}


def test_routes_and_hosts_are_bounded_whatever_the_application_makes_up(clock: Any) -> None:
    routes = Routes()
    for number in range(MOST_ROUTES + 100):
        account = finished(clock, {"werkzeug.request": FlaskRequest(f"/{number}")}, upstream=0.001)
        account.hosts = {f"host-{number}": 0.001}
        routes.add(account, 200)

    assert len(routes.by_pattern) <= MOST_ROUTES + 1
    assert len(routes.hosts) <= 201
    assert sum(route.count for route in routes.by_pattern.values()) == MOST_ROUTES + 100
    assert sum(host[0] for host in routes.hosts.values()) == MOST_ROUTES + 100


def test_bands_say_what_slow_requests_spend_their_time_with(clock: Any) -> None:
    routes = Routes()
    environ = {"werkzeug.request": FlaskRequest("/")}
    for _ in range(9):
        routes.add(finished(clock, environ, cpu=0.004), 200)
    routes.add(finished(clock, environ, cpu=0.004, query=2.0), 200)

    said = routes.by_pattern["/"].as_dict()

    slow = max(said["bands"], key=int)
    assert said["buckets"][int(slow)] == 1
    assert said["bands"][slow][STATES.index("query")] == pytest.approx(2.0)
    assert sum(said["seconds"]) == pytest.approx(said["total_seconds"])


@pytest.mark.parametrize("has_waited", [False, True])
@pytest.mark.parametrize(("took", "cpu", "total"), [(0.0125, "12.5", "14.5"), (0.25, "250.0", "252.0")])
def test_head_of_a_quick_request_says_the_same_as_that_of_others(
    clock: Any, has_waited: bool, took: float, cpu: str, total: str
) -> None:
    account = Account(clock.now())
    account.id, account._state, account.has_waited = "id-1", CPU, has_waited
    account.seconds[1] = 0.002
    account.began -= 0.002
    clock.advance(took)

    text = timing.head_text(account, has_id=False, has_timing=True, now=clock.now)
    again = timing.head_text(account, has_id=True, has_timing=True, now=clock.now)

    assert text == f"X-Request-ID: id-1\r\nServer-Timing: cpu;dur={cpu}, ready;dur=2.0, total;dur={total}\r\n"
    assert again == text.partition("\r\n")[2]


def test_requests_that_are_over_are_counted_many_at_once(clock: Any) -> None:
    insight = Insight.__new__(Insight)
    insight.over, insight.routes, insight.ring = [], Routes(), Ring()
    insight.errors = insight.expired = 0
    for number in range(COUNT_AT_ONCE + 5):
        account = finished(clock, {"werkzeug.request": FlaskRequest("/")}, cpu=0.001)
        account.code = 500 if number % 2 else 200
        insight.over.append(account)

    insight.count()
    insight.count()

    assert insight.routes.by_pattern["/"].count == COUNT_AT_ONCE + 5
    assert insight.errors == (COUNT_AT_ONCE + 5) // 2
    assert insight.ring.count == COUNT_AT_ONCE + 5
