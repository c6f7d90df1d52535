"""The tree is the first page of the documentation: short modules, and a map of them in each package."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 400
FOLDERS = ("app", "benchmarks", "deploy", "devdb", "docs", "greenroom")


def test_no_module_is_longer_than_one_idea_needs() -> None:
    files = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    lines = {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in files}

    assert len(files) > 400
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_each_package_says_in_its_first_words_which_modules_it_has() -> None:
    """In its own docstring or in that of the package above."""
    maps = sorted((ROOT / "greenroom").rglob("__init__.py"))
    missing = []
    for path in maps:
        above = path.parents[1] / "__init__.py"
        words = set(re.findall(r"\w+", docstring(path) + "\n" + docstring(above)))
        modules = {one.stem for one in path.parent.glob("[a-z]*.py")} | {
            one.parent.name for one in path.parent.glob("*/__init__.py")
        }
        missing += [f"{path.parent.relative_to(ROOT)}: {name}" for name in sorted(modules - words)]

    assert len(maps) > 10
    assert missing == []


def docstring(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") if path.exists() else ""


def test_the_package_knows_no_reference_application() -> None:
    found = [path for path in (ROOT / "greenroom").rglob("*") if path.is_file() and path.suffix != ".pyc"]

    assert len(found) > 300
    assert [str(path.relative_to(ROOT)) for path in found if b"app/" in path.read_bytes()] == []
