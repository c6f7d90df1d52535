"""Every package that our code imports is named in requirements.txt: what another one brings along may go with it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"app", "devdb", "greenroom", "benchmarks"}
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>\S+)\s+# (?P<why>\S.*)")


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(source: str) -> set[str]:
    """The packages that `source` imports, in any nesting, without Python's own and ours."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module or "")
    return {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names) - OURS


def requirements(text: str) -> dict[str, str]:
    """Normal name and version of each requirement. Raises ValueError for one without a version or a word on why."""
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = REQUIREMENT.fullmatch(line)
        if match is None:
            raise ValueError(f"not `name==version  # why`: {line}")
        found[normal(match["name"])] = match["version"]
    return found


def extras() -> dict[str, str]:
    """The optional dependencies of greenroom's package, imported only where they are installed."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [line for group in groups.values() for line in group]
    return {normal(re.split(r"[<>=!~ \[]", line)[0]): line for line in lines}


def undeclared(sources: dict[str, str], declared: dict[str, str]) -> dict[str, list[str]]:
    """Each package that some of the `sources` import and none of the `declared` distributions brings."""
    distributions = packages_distributions()
    missing: dict[str, list[str]] = {}
    for name, source in sources.items():
        for package in imported(source):
            if not {normal(found) for found in distributions.get(package, [])} & declared.keys():
                missing.setdefault(package, []).append(name)
    return missing


def test_every_import_is_declared() -> None:
    folders = ("app", "devdb", "greenroom")
    paths = [ROOT / "gunicorn.conf.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in paths}

    declared = requirements((ROOT / "requirements.txt").read_text())
    of_app = {name: source for name, source in sources.items() if name.startswith(("app/", "devdb/"))}

    assert len(sources) > 100
    assert undeclared(of_app, declared) == {}
    assert undeclared(sources, declared | extras()) == {}


def test_versions_are_those_that_are_tested() -> None:
    declared = requirements((ROOT / "requirements.txt").read_text())

    assert declared == {name: version(name) for name in declared}


@pytest.mark.parametrize(
    "source",
    [
        "import kombu",
        "from kombu.exceptions import X",
        "def f():\n    import kombu.utils",
        "try:\n    import kombu\nfinally: ...",
    ],
)
def test_each_way_to_import_is_seen(source: str) -> None:
    assert undeclared({"it": source}, {"celery": "5"}) == {"kombu": ["it"]}
    assert undeclared({"it": source}, {"kombu": "5"}) == {}


def test_pythons_own_and_ours_need_no_line() -> None:
    assert undeclared({"it": "import os.path, app.models\nfrom . import kombu\nfrom greenroom import x"}, {}) == {}


@pytest.mark.parametrize("line", ["kombu  # errors", "kombu==5.7.0", "kombu>=5  # errors"])
def test_a_requirement_has_a_version_and_a_reason(line: str) -> None:
    with pytest.raises(ValueError, match="why"):
        requirements(line)
