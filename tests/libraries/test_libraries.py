"""Nightly: other libraries' own tests, patched and not. Here too: how two runs are compared."""

import dataclasses
from pathlib import Path

import pytest

from .__main__ import compare, environment
from .catalogue import LIBRARIES, Library
from .outcomes import Outcome, allowed, not_allowed, read, worse
from .table import reports, row

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one"/>
<testcase classname="tests.test_a" name="test_two"><failure message="no   luck">...</failure></testcase>
<testcase classname="tests.test_a" name="test_three"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read_and_one_that_is_missing_is_empty(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT)

    found = read(tmp_path / "report.xml")

    assert {name.partition("::")[2]: outcome.is_bad for name, outcome in found.items()} == {
        "test_one": False,
        "test_two": True,
        "test_three": False,
    }
    assert found["tests.test_a::test_two"].why == "no luck"
    assert read(tmp_path / "missing.xml") == {}


def test_only_what_fails_patched_and_not_plain_is_worse() -> None:
    well, bad = Outcome(False), Outcome(True, "why")

    found = worse({"both": bad, "ours": well, "gone": well, "well": well}, {"both": bad, "ours": bad, "well": well})

    assert found == {"ours": "why", "gone": "it was not run"}


def test_what_is_allowed_has_a_library_and_a_reason() -> None:
    names = {library.distribution for library in LIBRARIES}

    assert all(reason for name in names for _, reason in allowed(name))
    assert not_allowed("none", {"tests.test_a::test_two[1]": "why"}) == {"tests.test_a::test_two[1]": "why"}


def test_a_row_counts_what_a_folder_of_runs_has(tmp_path: Path) -> None:
    library = Library("shop-kit")
    assert row(tmp_path, library) == ""

    (tmp_path / "sources" / "shop-kit-1.2").mkdir(parents=True)
    for report in reports(tmp_path, library):
        report.write_text(REPORT)

    assert row(tmp_path, library) == "| shop-kit 1.2 | 3 | 2 | 2 | 0 |"
    assert row(tmp_path, dataclasses.replace(library, part="its unit tests")).startswith(
        "| shop-kit 1.2, its unit tests |"
    )


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.distribution)
def test_its_own_tests_pass_in_a_patched_process(library: Library, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "libraries"
    folder.mkdir(exist_ok=True)

    assert compare(library, environment(folder), folder)
