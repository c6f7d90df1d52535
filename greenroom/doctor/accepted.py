"""Findings that a team knows and accepts, in a file that they keep beside the code.

    shop/mail.py  thread-per-request   send_receipt(), the mail server is quick: until the queue is there

A line names a file and a rule; what follows is for people. With `file:line` only that line is accepted, which moves
with every edit, so a file is mostly enough. `*` as the file accepts a rule everywhere.
"""

from collections.abc import Sequence
from pathlib import Path

from ..errors import GreenroomError
from .findings import Finding
from .rules import RULES


def read(path: Path) -> list[tuple[str, str]]:
    """(file or file:line, rule) of each line. Raises GreenroomError with the line that can't be understood."""
    try:
        lines = path.read_text().splitlines()
    except OSError as exc:
        raise GreenroomError(f"{path} can't be read: {exc.strerror}; --write-accepted makes it") from exc
    found = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) < 2 or words[1] not in RULES:
            raise GreenroomError(f"{path}, line {number} must begin with a file and a rule: `shop/mail.py no-timeout`")
        found.append((words[0], words[1]))
    return found


def split(findings: Sequence[Finding], known: Sequence[tuple[str, str]]) -> tuple[list[Finding], list[Finding]]:
    """Those that are new, and those that were accepted."""
    pairs = set(known)
    new: list[Finding] = []
    accepted: list[Finding] = []
    for finding in findings:
        keys = {(finding.file, finding.rule), (finding.place, finding.rule), ("*", finding.rule)}
        (accepted if keys & pairs else new).append(finding)
    return new, accepted


def written(findings: Sequence[Finding]) -> str:
    """The file that accepts all findings above notes."""
    lines = ["# Accepted findings of `greenroom doctor`: a file, a rule, and the reason for people.", ""]
    seen = dict.fromkeys((finding.file or "*", finding.rule) for finding in findings if finding.level != "note")
    width = max((len(file) for file, _ in seen), default=0)
    lines += [f"{file:{width}}  {rule}" for file, rule in sorted(seen)]
    return "\n".join(lines) + "\n"
