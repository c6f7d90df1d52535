"""What came of a run of pytest, from its JUnit file, and how two runs differ."""

import fnmatch
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ALLOWED = Path(__file__).with_name("allowed.txt")
BAD = ("failure", "error")


@dataclass(frozen=True)
class Outcome:
    is_bad: bool
    why: str = ""


def read(report: Path) -> dict[str, Outcome]:
    """By the test's name; nothing where pytest wrote no report."""
    if not report.exists():
        return {}
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        problem = next((child for child in case if child.tag in BAD), None)
        if problem is not None:
            found[name] = Outcome(True, " ".join((problem.get("message") or problem.text or "").split())[:300])
        else:
            found.setdefault(name, Outcome(False))
    return found


def worse(plain: dict[str, Outcome], patched: dict[str, Outcome]) -> dict[str, str]:
    """The tests that pass, or are skipped, in a plain process and not in a patched one, and why."""
    found = {}
    for name, outcome in plain.items():
        if outcome.is_bad:
            continue
        other = patched.get(name, Outcome(True, "it was not run"))
        if other.is_bad:
            found[name] = other.why
    for name in patched.keys() - plain.keys():
        if patched[name].is_bad:
            found[name] = patched[name].why
    return found


def allowed(library: str) -> list[tuple[str, str]]:
    """Patterns of tests of the library that may fail in a patched process, with their reasons."""
    lines = [line for line in ALLOWED.read_text().splitlines() if line and not line.startswith("#")]
    parts = [[part.strip() for part in line.split("|", 2)] for line in lines]
    assert all(len(each) == 3 and each[2] for each in parts), "allowed.txt: library | test | reason"
    return [(pattern, reason) for name, pattern, reason in parts if name == library]


def not_allowed(library: str, failing: dict[str, str]) -> dict[str, str]:
    patterns = [pattern for pattern, _ in allowed(library)]
    return {
        name: why
        for name, why in failing.items()
        if not any(fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)
    }
