"""What reading finds, and what it says of that which it could not read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom.doctor.examination import Examination, Options, Report

from .conftest import FLASK


def test_a_configuration_that_is_ours_is_not_told_to_become_so(read: Callable[..., Report]) -> None:
    report = read(
        FLASK,
        **{
            "gunicorn.conf.py": "from greenroom.configuration import configure\n\nglobals().update(configure())\n"
            "workers = 1\n"
        },
    )

    assert report.findings == []


def test_a_file_that_nests_too_deep_is_named_and_not_read(read: Callable[..., Report]) -> None:
    report = read(FLASK + "x = " + " + ".join(["''"] * 400))

    assert [(one.what, one.why) for one in report.skipped] == [
        ("reading", "shop.py nests deeper than 300 levels and was not read")
    ]


def test_a_rule_that_fails_is_named_and_the_others_are_asked(
    read: Callable[..., Report], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(project: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("greenroom.doctor.reading.locks.find", fail)
    (tmp_path / "shop.py").write_text(FLASK + "@app.get('/')\ndef index():\n    import os\n    os._exit(1)\n")
    monkeypatch.chdir(tmp_path)

    report = Examination(Options("shop:app", is_reading_only=True), lambda words: None).run()

    assert "exits-in-request" in {one.rule for one in report.findings}
    assert ["locks" in one.why and "KeyError('odd')" in one.why for one in report.skipped] == [True]
