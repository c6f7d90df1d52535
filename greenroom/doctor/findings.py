"""One thing that was found: where, what, and what to do about it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .rules import RULES
from .shapes import FindingRow

LEVELS = ("note", "warning", "error")
DOCS = "docs/doctor.md"


@dataclass(frozen=True)
class Finding:
    """`file` is relative to the working directory where it is below it; `line` 0: the finding is about no line.

    `cost` orders findings of one level: seconds, or a share of the requests, as the rule has it.
    """

    rule: str
    file: str
    line: int
    says: str
    do: str
    level: str = ""
    cost: float = 0.0
    stack: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()  # of a deployment file

    def __post_init__(self) -> None:
        if not self.level:
            object.__setattr__(self, "level", RULES[self.rule].level)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def docs(self) -> str:
        return f"{DOCS}#{self.rule}"

    @property
    def change(self) -> tuple[str, ...]:
        """The lines of a diff where the change is one of settings."""
        setting = re.search(r'GREENROOM_[A-Z_]+=(?:"[^"]*"|[^\s,;`]+)', self.do)
        return self.diff or (("--- .env", f"+{setting[0]}") if setting else ())

    @property
    def rank(self) -> tuple[int, float, float, str, int]:
        """Sorts what costs most first."""
        return (-LEVELS.index(self.level), -RULES[self.rule].weight, -self.cost, self.file, self.line)

    def as_dict(self) -> FindingRow:
        return {
            "level": self.level,
            "rule": self.rule,
            "file": self.file,
            "line": self.line,
            "says": self.says,
            "do": self.do,
        }


def ordered(found: Iterable[Finding]) -> list[Finding]:
    """Each rule and line once, the dearest first.

    A finding from the run says more than one from reading: a later finding with a higher cost takes the place of an
    earlier one, and the higher level of the two stays.
    """
    kept: dict[tuple[str, str, int], Finding] = {}
    for finding in found:
        key = (finding.rule, finding.file, finding.line)
        other = kept.get(key)
        if other is None:
            kept[key] = finding
            continue
        best = finding if finding.cost > other.cost else other
        level = max(finding.level, other.level, key=LEVELS.index)
        kept[key] = replace(best, level=level)
    return sorted(kept.values(), key=lambda finding: finding.rank)


def is_at_least(finding: Finding, level: str) -> bool:
    return LEVELS.index(finding.level) >= LEVELS.index(level)


def verdict(found: Iterable[Finding]) -> str:
    levels = {finding.level for finding in found}
    if "error" in levels:
        return "not ready"
    return "ready, with warnings" if "warning" in levels else "ready"
