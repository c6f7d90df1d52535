"""A rule's finding: how bad it is, one sentence with the numbers, and what to do."""

from collections.abc import Callable
from typing import Any

from ..collect import Moment
from ..shapes import View

LEVELS = BAD, WATCH, OK = "bad", "watch", "ok"
# Fewer requests than this are no ground for a verdict about the server.
FEWEST = 3
RECENT_SECONDS = 60.0
FULL_CPU = 0.9
LAGGING_SECONDS = 0.1

Finding = dict[str, Any]
Rule = Callable[[Moment, View], list[Finding]]


def finding(level: str, sentence: str, do: str = "", *, cause: str, **evidence: Any) -> Finding:
    """`cause` is a slug that stays the same from version to version; `evidence` are the facts behind the sentence."""
    return {"level": level, "cause": cause, "sentence": sentence, "do": do, **evidence}
