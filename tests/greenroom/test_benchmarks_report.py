"""benchmarks/report.py: what the table, the warnings and the JSON document say."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.measuring import TABLE_COLUMNS
from benchmarks.stats import Summary


def a_summary(server: str = "gevent", route: str = "upstream", **values: object) -> Summary:
    given = {
        "requests_per_second": 480.0,
        "p50_ms": 104.0,
        "p99_ms": 131.0,
        "errors": {},
        "memory_bytes": 52_000_000,
        "server_cpu_ratio": 0.6,
        "generator_cpu_ratio": 0.1,
        "load_cores_busy_ratio": 0.4,
        "others_on_server_core_ratio": 0.05,
        **values,
    }
    return Summary(server=server, route=route, **given)


def warnings(*summaries: Summary, load_average_before: float = 0.1) -> list[str]:
    return report.warnings(
        summaries, load_average_before=load_average_before, busy_load_average=0.5, timeout_seconds=30
    )


def test_table_names_each_route_once_and_shows_ratios_for_all_but_the_baseline() -> None:
    baseline = a_summary("sync", requests_per_second=10.0, requests_per_second_ratio=1.0)
    summaries = [baseline, a_summary(requests_per_second_ratio=48.0), a_summary("sync", "plain")]
    output = io.StringIO()

    Console(file=output, width=TABLE_COLUMNS).print(report.table(summaries, "sync", "PSS"))

    text = output.getvalue()
    assert text.count("upstream") == 1
    assert "480 (×48)" in text
    assert "×1.0" not in text
    assert "PSS MB" in text
    assert "plain" in text


def test_table_fits_its_width_with_the_widest_numbers() -> None:
    wide = {"requests_per_second": 12345.0, "p50_ms": 12345.0, "p99_ms": 54321.0, "memory_bytes": 123_000_000}
    ratios = {"requests_per_second_ratio": 0.062, "p50_ratio": 0.062, "p99_ratio": 0.062}
    output = io.StringIO()

    table = report.table([a_summary("gthread", **wide, **ratios)], "sync", "PSS")
    Console(file=output, width=TABLE_COLUMNS).print(table)

    assert "…" not in output.getvalue()
    assert "54,321 (×0.062)" in output.getvalue()


def test_row_shows_the_servers_cpu_of_a_request_beside_its_rate() -> None:
    assert "242" in report.row(a_summary(cpu_microseconds=242.3))
    assert "-" in report.row(a_summary())


def test_row_shows_how_many_requests_failed() -> None:
    assert "1,203" in report.row(a_summary(errors={"timeout": 1200, "wrong body": 3}))


def test_errors_are_told_with_their_reasons_and_what_a_timeout_is() -> None:
    found = warnings(a_summary(errors={"timeout": 12, "wrong body": 3}))

    assert "gevent on upstream: 15 requests failed (12 timeout, 3 wrong body)" in found
    assert "a time-out is a request without a whole answer in 30 s" in found


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"generator_cpu_ratio": 0.86}, "the load generator had no time to spare"),
        ({"load_cores_busy_ratio": 0.86}, "the cores beside the server's were busy"),
        ({"others_on_server_core_ratio": 0.86}, "other programs ran on the server's core"),
    ],
)
def test_a_core_that_was_too_busy_is_told(values: dict[str, float], said: str) -> None:
    (found,) = warnings(a_summary(**values))

    assert found.startswith(said)
    assert "gevent on upstream 86%" in found


def test_a_busy_machine_is_told() -> None:
    (found,) = warnings(a_summary(), load_average_before=1.4)

    assert "load average 1.4" in found


def test_a_clean_run_warns_of_nothing() -> None:
    assert warnings(a_summary(generator_cpu_ratio=0.85), a_summary("sync", load_cores_busy_ratio=None)) == []


@pytest.mark.parametrize(
    ("value", "shown"), [(3412.4, "3,412"), (97.6, "98"), (9.84, "9.8"), (0.0, "0.0"), (math.nan, "-")]
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert report.number(value) == shown


@pytest.mark.parametrize(("ratio", "shown"), [(48.2, "×48"), (7.93, "×7.9"), (0.97, "×1.0"), (0.129, "×0.13")])
def test_ratios_are_short(ratio: float, shown: str) -> None:
    assert report.times(ratio) == shown


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_json({"p50_ms": math.nan}, tmp_path / "x.json")


def test_json_is_written_whole(tmp_path: Path) -> None:
    report.write_json({"rounds": [a_summary().as_dict()]}, tmp_path / "x.json")

    assert json.loads((tmp_path / "x.json").read_text())["rounds"][0]["server"] == "gevent"
