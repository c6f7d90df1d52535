"""Every planted problem is found at its line, and the clean applications have none."""

from pathlib import Path

import pytest

from greenroom.doctor.examination import Examination, Options

from .conftest import doctor
from .corpus import CLEAN, CORPUS, NAMES, ONLY_DRIVEN, PLANTED, files, is_runnable, planted

# One for each way of seeing (statements, C code, calls in threads, growth), and a clean one that does much. The
# others are driven at night.
DRIVEN = ("n-plus-one", "regex", "password-hash", "endless-cache", "clean-database")


def test_the_corpus_is_as_large_as_was_asked_for() -> None:
    assert len(PLANTED) >= 40
    assert len(CLEAN) >= 10
    assert all(planted(name) for name in PLANTED)
    assert not any(planted(name) for name in CLEAN)


@pytest.mark.parametrize("name", [name for name in PLANTED if name not in ONLY_DRIVEN])
def test_reading_finds_the_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS / name)

    report = Examination(Options("shop:app", is_reading_only=True), lambda words: None).run()

    assert planted(name) <= {(one.rule, one.file, one.line) for one in report.findings}


@pytest.mark.parametrize("name", CLEAN)
def test_reading_a_clean_application_finds_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS / name)

    report = Examination(Options("shop:app", is_reading_only=True), lambda words: None).run()

    assert [one for one in report.findings if one.level != "note"] == []
    assert report.verdict == "ready"


@pytest.mark.parametrize("name", DRIVEN)
def test_running_finds_the_line_and_leaves_nothing(name: str) -> None:
    check(name, "--no-gains", "--for", "45")


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in NAMES if is_runnable(name)])
def test_the_whole_examination(name: str) -> None:
    check(name)


def check(name: str, *arguments: str) -> None:
    before = files(name)

    said = doctor(CORPUS / name, "shop:app", "--json", *arguments)

    assert planted(name) <= said.places(), said.output
    if name in CLEAN:
        assert said.places("warning", "error") == set(), said.output
        assert (said.code, said.report["verdict"]) == (0, "ready")
    else:
        assert said.code == (1 if said.places("warning", "error") else 0)
    assert files(name) == before
    assert not list(Path(CORPUS / name).glob("__pycache__"))
