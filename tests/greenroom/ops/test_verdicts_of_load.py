"""Verdicts on overload and clients: a full CPU, a quota, and who sends too much, too slowly or reads too slowly."""

from typing import Any

from greenroom.ops.usual import Usual

from .fakes import NOW, request, route, seen, snapshot
from .troubles import causes, stuck, verdict


def test_one_worker_with_all_clients_while_another_idles_is_said() -> None:
    busy, idle = seen(1, snapshot(), connections=40.0, cpu=0.95), seen(2, snapshot(), connections=1.0, cpu=0.02)

    found = verdict(busy, idle)

    assert found["cause"] == "uneven"
    assert "worker 1 has 40 of 41 connections" in found["sentence"]


def test_overload_names_the_client_that_sends_most_of_it() -> None:
    clients = {"total": 1000.0, "known": 5, "top": [{"client": "10.0.0.7", "count": 820.0}], "shed": {"private": 300}}

    found = verdict(seen(said=snapshot(clients=clients), cpu=0.99), grown={"shed": 500, "requests": 100})

    assert "82% of all requests come from 10.0.0.7" in found["sentence"]
    assert "limit_req" in found["do"]


def test_slow_uploads_are_named_with_their_client() -> None:
    rows = stuck(60, "client", "body", 0.5, client="10.0.0.7", age_seconds=9.0)

    found = verdict(seen(said=snapshot(in_flight=rows)))

    assert found["cause"] == "slow_uploads"
    assert "60 requests wait for their clients to send the body" in found["sentence"]
    assert "100% of them from 10.0.0.7" in found["sentence"]


def test_a_full_cpu_that_requests_do_not_use_is_told_as_that() -> None:
    few = snapshot(routes={"/ok": route(50, seconds=0.001)})
    many = snapshot(routes={"/ok": route(50, seconds=0.15)})

    beside = verdict(seen(said=few, cpu=0.97, lag_seconds=0.3), grown={"requests": 50})
    theirs = verdict(seen(said=many, cpu=0.97, lag_seconds=0.3), grown={"requests": 50})
    quick = verdict(seen(said=few, cpu=0.97, lag_seconds=0.01), grown={"requests": 50})
    quick_theirs = verdict(seen(said=many, cpu=0.97, lag_seconds=0.01), grown={"requests": 50})

    assert beside["cause"] == theirs["cause"] == quick["cause"] == "cpu"
    assert quick_theirs["cause"] == "healthy"
    assert beside["sentence"].startswith("The CPU is full, and not by requests: in worker 1 something beside them")
    assert theirs["sentence"].startswith("The CPU is full: worker 1 computes all the time")


def test_answers_that_one_client_reads_slowly_are_told_with_its_address() -> None:
    theirs = [
        request("client", "answer", 30.0, id=f"r-{number}", route="/big", client="10.0.0.7") for number in range(30)
    ]
    many = [
        request("client", "answer", 30.0, id=f"r-{number}", route="/big", client=f"10.0.1.{number}")
        for number in range(30)
    ]

    found = verdict(seen(said=snapshot(in_flight=theirs)))
    public = verdict(seen(said=snapshot(in_flight=many)))

    assert found["cause"] == "slow_readers"
    assert found["sentence"] == (
        "30 answers are read slowly by their clients (/big), the longest for 30.1 s, 100% of them by 10.0.0.7."
    )
    assert public["level"] == "ok"
    assert "slow_readers" in causes(public)


def test_a_line_that_waits_in_c_again_and_again_explains_an_overload_without_cpu() -> None:
    last = [
        {"since": NOW - 0.8 * number, "seconds": 0.7, "cpu_seconds": 0.0, "line": "v.py:7", "route": "/c"}
        for number in range(10)
    ]
    said = snapshot(stalls={"total": 10, "seconds": 7.0, "current": None, "top": [], "last": last})
    lines = {**said, "worker": {"in_flight": 9, "queued": 9, "limit_requests": 0, "line_seconds": 1.3}}

    idle = verdict(seen(said=lines, cpu=0.02))
    busy = verdict(seen(said=lines, cpu=0.99))

    assert (idle["cause"], idle["level"]) == ("stalls", "bad")
    assert "overload" not in causes(idle)
    assert "overload" in causes(busy)


def test_overload_of_clients_behind_one_address_blames_none() -> None:
    clients = {"total": 1000.0, "known": 1, "top": [{"client": "10.0.0.7", "count": 1000.0}], "shed": {"private": 300}}

    found = verdict(seen(said=snapshot(clients=clients), cpu=0.99), grown={"shed": 500, "requests": 100})

    assert found["cause"] == "overload"
    assert "10.0.0.7" not in found["sentence"]


def test_heads_that_are_too_large_are_told_with_the_limits() -> None:
    said = snapshot(routes={"/": route(20)}, clients={"refused": {"LimitRequestHeaders": 12, "InvalidRequestLine": 90}})

    found = verdict(seen(said=said))

    assert found["cause"] == "refused"
    assert found["sentence"].startswith("12 requests in the last 10 s are refused before the application sees them")
    assert "limit_request_field_size" in found["do"]


def test_clients_that_hang_up_are_told() -> None:
    left = {**route(20, seconds=1.0, state="upstream"), "cut": 18}
    found = verdict(seen(said=snapshot(routes={"/stock": left, "/ok": route(100)})))

    assert found["cause"] == "given_up"
    assert found["sentence"].startswith("18 of 20 requests of /stock in the last 10 s are given up by their clients")
    assert "after 1 s on average; the time goes to an upstream" in found["sentence"]

    few = verdict(seen(said=snapshot(routes={"/stock": {**left, "cut": 4}, "/ok": route(100)})))
    assert few["cause"] == "healthy"


def test_a_cpu_quota_that_stops_the_workers_is_the_limit() -> None:
    limits = {"quota": {"cores": 0.2, "stopped_ratio": 0.9}}
    late = {"lag_seconds": 0.3, "now": NOW}
    busy = seen(1, snapshot(), cpu=0.1)
    busy.line["lag_seconds"] = 0.3
    found = verdict(busy, limits=limits, history=[late])

    assert (found["level"], found["cause"]) == ("watch", "throttled")
    assert found["sentence"].startswith("The CPU quota of 0.2 cores stops the workers in 90% of its periods")
    few = {"quota": {"cores": 0.2, "stopped_ratio": 0.3}}
    assert verdict(seen(1, snapshot()), limits=few)["cause"] == "healthy", "nobody feels it"
    assert verdict(seen(1, snapshot()), limits=limits)["cause"] == "throttled"


def test_clients_that_are_refused_and_were_not_before_are_told() -> None:
    def sums(count: int, refused: int) -> dict[str, Any]:
        return {**route(count), "statuses": {"2xx": count - refused, "4xx": refused}}

    usual = Usual()
    for step in range(6):
        usual.look(step * 10.0, {"/me": sums(100 * step, step), "/other-me": sums(100 * step, 60 * step)})
    now = snapshot(routes={"/me": sums(100, 60), "/other-me": sums(100, 60), "/ok": route(100)})
    found = verdict(seen(said=now), usual=usual)

    assert found["cause"] == "refused_more"
    assert found["sentence"] == "60% of the answers of /me in the last 10 s are 4xx, 1% before."
    assert "SECRET_KEY" in found["do"]
    assert verdict(seen(said=now))["cause"] == "healthy", "nothing is known of before"
