"""A module holds one idea: none of ours has more than 400 lines."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400
FOLDERS = ("app", "benchmarks", "deploy", "devdb", "docs", "greenroom")


def test_no_module_is_longer_than_one_idea_needs() -> None:
    files = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    lines = {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in files}

    assert len(files) > 400
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
