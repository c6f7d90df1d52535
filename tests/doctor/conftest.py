"""Running the doctor as people do: a process of its own, in the application's folder."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from greenroom.doctor.examination import Examination, Options, Report

ROOT = Path(__file__).resolve().parents[2]
# Must not expire when all is well: the doctor bounds itself.
LONG_WAIT_SECONDS = 110
# The first lines of an application that is only read.
FLASK = "from flask import Flask, request\n\napp = Flask(__name__)\n\n\n"


@dataclass
class Said:
    """The output of one run of the doctor."""

    code: int
    output: str
    errors: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.output)

    def places(self, *levels: str) -> set[tuple[str, str, int]]:
        """(rule, file, line) of its findings, of these levels or of all."""
        return {
            (one["rule"], one["file"], one["line"])
            for one in self.report["findings"]
            if not levels or one["level"] in levels
        }

    @property
    def rules(self) -> set[str]:
        return {rule for rule, _, _ in self.places()}


def doctor(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> Said:
    """`greenroom doctor ARGUMENTS` in `folder`."""
    ended = subprocess.run(
        [sys.executable, "-m", "greenroom", "doctor", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
    )
    return Said(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    """`read(text)` is the report on an application of one file, read and not run; more files by their names."""

    def run(text: str, app: str = "shop:app", **files: str) -> Report:
        for name, content in {"shop.py": text, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.chdir(tmp_path)
        report = Examination(Options(app, is_reading_only=True), lambda words: None).run()
        assert not any("a defect of doctor" in one.why for one in report.skipped)
        return report

    return run
