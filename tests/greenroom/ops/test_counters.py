"""No counter ever falls, whoever dies and whenever."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.ops.counters import MOST_NAMES, OTHER, Counters

from .fakes import route, snapshot


def said(start_id: str, count: int, name: str = "/") -> dict[str, Any]:
    stalls = {"total": count, "seconds": count * 0.5, "top": [{"line": "v.py:1", "count": count, "seconds": 1.0}]}
    return snapshot(
        start_id, {name: route(count)}, stalls=stalls, upstreams={"api:443": {"waits": count, "seconds": 1}}
    )


def counted(sums: Counters) -> dict[str, float]:
    total = sums.total()
    return {
        **{f"route {name}": row["count"] for name, row in total["routes"].items()},
        **{f"bucket {name}": sum(row["buckets"]) for name, row in total["routes"].items()},
        **{f"line {name}": row["count"] for name, row in total["lines"].items()},
        **{f"host {name}": row["waits"] for name, row in total["upstreams"].items()},
        "stalls": total["stalls"].get("total", 0),
    }


WORKERS = st.sampled_from(["a", "b", "c"])
NAMES = st.sampled_from(["/", "/x", "/y"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), WORKERS, st.integers(0, 5), NAMES),
        st.tuples(st.just("die"), WORKERS),
        st.tuples(st.just("end"), WORKERS, st.integers(0, 5)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_in_whatever_order_nothing_falls(steps: list[Any]) -> None:
    sums = Counters()
    lives = {"a": 0, "b": 0, "c": 0}
    counts: dict[str, int] = {}
    before: dict[str, float] = {}
    for step, worker, *more in steps:
        start_id = f"{worker}{lives[worker]}"
        name = more[1] if len(more) > 1 else "/"
        if step in ("say", "end"):
            counts[start_id] = counts.get(start_id, 0) + more[0]
        words = said(start_id, counts.get(start_id, 0), name)
        if step == "say":
            sums.update(words)
        else:
            sums.fold(start_id, words if step == "end" else None)
            lives[worker] += 1
        now = counted(sums)
        assert {name: value for name, value in before.items() if now.get(name, 0) < value} == {}
        before = now


def test_last_words_count_what_was_done_since_the_last_look() -> None:
    sums = Counters()
    sums.update(said("a", 10))

    sums.fold("a", said("a", 17))

    assert counted(sums)["route /"] == 17


def test_what_the_dead_had_counted_survives_the_process(tmp_path: Path) -> None:
    first = Counters(tmp_path / "sums")
    first.update(said("a", 10))
    first.fold("a")
    first.save()

    second = Counters(tmp_path / "sums")
    assert counted(second)["route /"] == 10
    second.update(said("a", 10))
    second.update(said("b", 5))

    assert counted(second)["route /"] == 15, "a is dead and counts once"


def test_a_file_that_is_no_sums_is_said_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "sums").write_text('{"gone": 3')

    assert counted(Counters(tmp_path / "sums")) == {"stalls": 0}


def test_a_full_disk_costs_only_the_memory_of_restarts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    sums = Counters(tmp_path / "file" / "sums")
    sums.update(said("a", 10))

    sums.save()

    assert counted(sums)["route /"] == 10
    assert "can't be kept" in caplog.text


def test_names_are_bounded_and_those_that_have_one_keep_it() -> None:
    sums = Counters()
    for number in range(0, 3 * MOST_NAMES, 25):
        sums.update(snapshot(f"w{number % 7}", {f"/{name}": route(1) for name in range(number, number + 50)}))

    routes = sums.total()["routes"]

    assert len(routes) <= MOST_NAMES + 1
    assert OTHER in routes


def test_a_line_that_a_worker_has_forgotten_keeps_its_count() -> None:
    sums = Counters()
    sums.update(said("a", 10))

    sums.update(snapshot("a", stalls={"top": [{"line": "v.py:1", "count": 1, "seconds": 0.1}]}))

    assert counted(sums)["line v.py:1"] == 10
