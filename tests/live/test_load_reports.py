"""The reports of `greenroom load`: the page, comparisons, and the capacity that is found."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom.load.running import run as run_load
from tests.live.synthetic import has_ended_as, synthetic
from tests.live.test_load_requests import options


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with synthetic() as address:
        yield f"http://{address}"


def test_page_is_one_file_with_its_plots_and_the_whole_result(origin: str, tmp_path: Path) -> None:
    page, file = tmp_path / "report.html", tmp_path / "result.json"

    code = run_load(
        options(
            f"{origin}/errors?every=4&x=</script><b>", "--rate", "100", "--for", "2s", "--expect", "errors<1%",
            "--html", str(page), "--json", str(file), "--live", "off",
        )
    )  # fmt: skip

    text = page.read_text()
    assert has_ended_as(1, code, json.loads(file.read_text()))
    assert text.count("<svg") == 4
    for title in ("Rate: asked, good", "percentiles", "how many took how long", "logarithmic axis", "Errors by kind"):
        assert title in text
    assert "<b>" not in text.replace("<b>Limited by:</b>", "")
    assert re.findall(r"https?://(?!127\.0\.0\.1)", text) == []
    embedded = re.search(r'<script type="application/json" id="result">(.*)</script>', text)
    assert embedded is not None
    assert json.loads(embedded[1]) == json.loads(file.read_text())


def test_results_are_compared(origin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, milliseconds in (("before", 40), ("after", 5)):
        run_load(
            options(
                f"{origin}/fixed?ms={milliseconds}", "--rate", "50", "--for", "1s", "--json",
                str(tmp_path / f"{name}.json"), "--live", "off",
            )
        )  # fmt: skip
    capsys.readouterr()

    code = run_load(options("--compare", str(tmp_path / "before.json"), str(tmp_path / "after.json")))

    out = capsys.readouterr().out
    assert code == 0
    assert re.search(r"before\s+after", out)
    assert re.search(r"p50\s+[\d.]+ ms\s+[\d.]+ ms \(-\d+%\)", out), out
    shown = re.search(r"good\s+([\d.]+)/s\s+([\d.]+)/s \([-+]\d+%\)", out)
    assert shown, out
    good = [json.loads((tmp_path / f"{name}.json").read_text())["good_per_second"] for name in ("before", "after")]
    assert [float(number) for number in shown.groups()] == pytest.approx(good, abs=0.6)


def test_search_ends_at_the_highest_rate_that_may_be_asked(origin: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    asked = ("--find-capacity", "--highest", "20", "--for", "1s", "--expect", "p50<5s")

    code = run_load(options(f"{origin}/fixed", *asked, "--json", str(file), "--live", "off"))

    said = json.loads(file.read_text())
    searched = [one for one in said["capacity"]["trials"] if one["asked_per_second"] <= 20]
    assert code == 0
    assert said["held"]
    if all(one["held"] for one in searched):  # else the machine was too busy for it
        assert (said["capacity_per_second"], said["asked_per_second"], said["limited_by"]) == (20, 20, None)
    assert said["capacity_per_second"] <= 20


@pytest.mark.nightly
def test_capacity_of_a_real_server_is_found(origin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"

    code = run_load(
        options(
            f"{origin}/shed?rate=80", "--find-capacity", "--for", "1s", "--expect", "p99<2s", "--json", str(file),
            "--live", "off",
        )
    )  # fmt: skip

    said = json.loads(file.read_text())
    assert code == 0, said["capacity"]
    assert said["capacity_per_second"] == pytest.approx(80, rel=0.15)
    assert said["capacity"]["goodput_at_3x_per_second"] == pytest.approx(80, rel=0.25)
    assert "turned" in said["limited_by"]
    assert "capacity " in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("path", "capacity"),
    [
        ("/capacity?rate=100", 100),
        ("/capacity?rate=400&ms=20", 400),
        ("/shed?rate=200", 200),
        ("/capacity?rate=30", 30),
        ("/slowing?easy=150", 150 + 56),  # within 300 ms
    ],
)
def test_capacity_of_synthetic_servers_is_found_within_five_percent(
    origin: str, tmp_path: Path, path: str, capacity: float
) -> None:
    file = tmp_path / "result.json"

    run_load(
        options(f"{origin}{path}", "--find-capacity", "--expect", "p99<300ms", "--json", str(file), "--live", "off")
    )

    assert json.loads(file.read_text())["capacity_per_second"] == pytest.approx(capacity, rel=0.05)
