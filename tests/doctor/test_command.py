"""The command: what it prints, where, and how it ends."""

from pathlib import Path

from .conftest import doctor
from .corpus import CORPUS

NO_TIMEOUT = CORPUS / "no-timeout"


def test_json_is_all_that_standard_output_has() -> None:
    said = doctor(NO_TIMEOUT, "shop:app", "--json", "--read-only")

    assert set(said.report) == {"verdict", "findings", "routes", "skipped"}
    assert set(said.report["findings"][0]) == {"level", "rule", "file", "line", "says", "do"}
    assert said.code == 1


def test_fail_on_decides_the_exit_code() -> None:
    codes = [doctor(NO_TIMEOUT, "shop:app", "--read-only", "--fail-on", level).code for level in ("error", "warning")]

    assert codes == [0, 1]


def test_what_was_accepted_is_neither_shown_nor_counted(tmp_path: Path) -> None:
    file = tmp_path / "accepted"
    first = doctor(NO_TIMEOUT, "shop:app", "--read-only", "--write-accepted", str(file))

    second = doctor(NO_TIMEOUT, "shop:app", "--read-only", "--json", "--accepted", str(file))

    assert first.code == 1
    assert file.read_text().splitlines()[-1].split() == ["shop.py", "no-timeout"]
    assert (second.code, second.report["findings"], second.report["verdict"]) == (0, [], "ready")


def test_a_file_of_accepted_findings_that_cannot_be_understood_is_named(tmp_path: Path) -> None:
    (tmp_path / "accepted").write_text("shop.py no-such-rule\n")

    said = doctor(NO_TIMEOUT, "shop:app", "--read-only", "--accepted", str(tmp_path / "accepted"))

    assert said.code == 2
    assert "line 1 must begin with a file and a rule" in said.errors


def test_the_page_is_one_file_with_everything_escaped(tmp_path: Path) -> None:
    page = tmp_path / "report.html"

    doctor(NO_TIMEOUT, "shop:app", "--read-only", "--html", str(page))

    text = page.read_text()
    assert "shop.py:13" in text
    assert "docs/doctor.md#no-timeout" in text
    assert "<script" not in text
    assert "http" not in text.partition("<article")[0]


def test_an_application_that_is_not_there_could_not_run(tmp_path: Path) -> None:
    said = doctor(tmp_path, "nothing:app", "--json", "--for", "20")

    assert said.code == 2
    assert said.report["verdict"] == "could not run"
    assert "there is no module nothing" in said.report["findings"][0]["says"]


def test_what_can_be_read_is_told_when_the_import_fails(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import pymssql_not_here\nimport requests\n\napp = None\n\n\ndef price():\n    return requests.get('http://x')\n"
    )

    said = doctor(tmp_path, "shop:app", "--json", "--for", "20")

    assert said.code == 2
    assert ("import-fails", "shop.py", 1) in said.places()
    assert ("no-timeout", "shop.py", 8) in said.places()


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "raise RuntimeError('no connection to postgresql://shop:hunter2hunter2@db/shop, token=abcdefabcdef')\n"
    )

    said = doctor(tmp_path, "shop:app", "--json", "--for", "20", "--html", "report.html")

    for text in (said.output, said.errors, (tmp_path / "report.html").read_text()):
        assert "hunter2" not in text
        assert "abcdefabcdef" not in text


def test_arguments_that_make_no_sense_are_named() -> None:
    said = doctor(NO_TIMEOUT, "shop:app", "--for", "1")

    assert (said.code, said.output) == (2, "")
    assert "--for must be 5 seconds or more (got 1)" in said.errors
