"""/metrics is OpenMetrics, bounded, and what the Grafana dashboard asks for."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from greenroom.ops.counters import MOST_NAMES
from greenroom.ops.metrics import busy_ratio, exposition
from greenroom.ops.openmetrics import escaped

from .fakes import moment, route, seen, snapshot

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "greenroom.json"
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = r'\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:,|(?=\})))*\}'
SAMPLE = re.compile(rf"({NAME})({LABELS})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
HOSTILE = '/a"b\\c\nd{e="f"} 1\n# EOF\n\x1b[31m' + "é" * 300


def busy() -> Any:
    said = snapshot(
        routes={"/": route(), HOSTILE: route(3, status="5xx"), HOSTILE + "2": route(1)},
        upstreams={"api:443": {"waits": 3, "seconds": 1.5}},
        pools=[{"name": "main", "kind": "database", "size": 5, "in_use": 2, "waiting": 0}],
        stalls={"total": 2, "seconds": 0.7, "top": [{"line": "v.py:1", "count": 2, "seconds": 0.7}], "last": []},
        held=[{"used": "v.py:3", "upstream": "v.py:4", "host": "api", "count": 2, "seconds": 1, "held_seconds": 1}],
    )
    return moment(seen(1, said), seen(2, said))


def samples(text: str) -> dict[str, dict[str, float]]:
    """By family; whatever is no OpenMetrics is an AssertionError."""
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""]
    found: dict[str, dict[str, float]] = {}
    family, kind = "", ""
    for line in lines[:-2]:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in found, "a family comes once, in one piece"
            found[family] = {}
        elif line.startswith("# UNIT "):
            assert family.endswith("_" + line.split(" ")[3])
        elif line.startswith("# HELP "):
            assert line.split(" ")[2] == family
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in [family + suffix for suffix in SUFFIXES[kind]]
            series = line.rpartition(" ")[0]
            assert series not in found[family], "a series comes once"
            found[family][series] = float(match[3])
    return found


def test_it_is_openmetrics_whatever_the_names_are() -> None:
    found = samples(exposition(busy()))

    assert found["greenroom_route_requests"]['greenroom_route_requests_total{route="/",status="2xx"}'] == 20
    assert found["greenroom_stalls"]["greenroom_stalls_total"] == 100, "from the scoreboard"
    assert found["greenroom_workers"]['greenroom_workers{state="serving"}'] == 2


def test_buckets_add_up_to_the_count() -> None:
    found = samples(exposition(busy()))["greenroom_request_duration_seconds"]

    buckets = [
        found[f'greenroom_request_duration_seconds_bucket{{route="/",le="{le}"}}'] for le in ("0.01", "0.1", "+Inf")
    ]
    assert buckets == [0, 20, 20]
    assert found['greenroom_request_duration_seconds_count{route="/"}'] == 20
    assert found['greenroom_request_duration_seconds_sum{route="/"}'] == 1.0


def test_a_label_can_not_leave_its_quotes_and_stays_itself() -> None:
    assert escaped('a"b\\c\n') == 'a\\"b\\\\c\\n'
    assert len(escaped("x" * 10_000)) < 250
    assert escaped("x" * 1000 + "1") != escaped("x" * 1000 + "2")


def test_a_server_without_workers_or_answers_has_metrics_too() -> None:
    samples(exposition(moment()))
    samples(exposition(moment(seen(1, None), seen(2, {}))))


def test_a_scan_does_not_make_series_without_end_and_scraping_is_cheap() -> None:
    workers = [
        seen(number, snapshot(f"w{number}", {f"/{number}/{name}": route() for name in range(500)}))
        for number in range(1, 9)
    ]
    staged = moment(*workers)

    began = time.thread_time()
    text = exposition(staged)
    spent = time.thread_time() - began

    found = samples(text)
    assert len(found["greenroom_route_requests"]) <= 5 * (MOST_NAMES + 1)
    assert spent < 1.0


def test_the_dashboard_asks_for_what_there_is() -> None:
    """Every metric in its queries is one of ours, with labels that it has; and everything important is on it."""
    text = exposition(busy())
    found = samples(text)
    known = {
        series.partition("{")[0] for series in "\n".join(key for family in found.values() for key in family).split("\n")
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    asked = {name for query in queries for name in re.findall(r"greenroom_[a-z_]+", query)}

    assert asked - known == set()
    for label in {
        label for query in queries for labels in re.findall(r"by \(([a-z, ]+)\)", query) for label in labels.split(", ")
    }:
        assert f'{label}="' in text or label == "le"
    assert {name.removesuffix("_total") for name in asked} >= {
        *("greenroom_requests", "greenroom_requests_shed", "greenroom_requests_failed", "greenroom_in_flight_requests"),
        *(
            "greenroom_lag_seconds",
            "greenroom_route_seconds",
            "greenroom_pool_waiting_requests",
            "greenroom_stall_seconds",
        ),
    }
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_busy_ratio_is_of_the_fullest_thing() -> None:
    """Of the cores on average, the limit, and all of it when requests are turned away."""
    idle, busy = seen(1, said=snapshot(), cpu=0.2), seen(2, said=snapshot("w2"), cpu=0.6)
    assert busy_ratio(moment(idle, busy)) == pytest.approx(0.4)
    assert busy_ratio(moment(idle, busy, grown={"shed": 10})) == 1.0
    full = snapshot(worker={"in_flight": 9, "queued": 0, "limit_requests": 10})
    assert busy_ratio(moment(seen(said=full, cpu=0.2))) == pytest.approx(0.9)
    assert busy_ratio(moment()) == 0.0
