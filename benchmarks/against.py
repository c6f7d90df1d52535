"""A run beside an earlier one: `python -m benchmarks.run --against LAST.json`. Has our worker become dearer?

CPU of a request, ours as a multiple of the stock worker's in the same run: another machine, or a busier one, changes
both. Where the stock worker was not measured in both runs it is our CPU alone, and the machine must be the same one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .peers import BASELINE, OURS
from .report import SCHEMA
from .servers import ServerFailed

# Rounds differ by less than this on a machine that does nothing else.
MOST_DEARER_RATIO = 1.15


@dataclass(frozen=True)
class Change:
    route: str
    before: float
    after: float
    is_relative: bool  # both are times the stock worker's

    @property
    def is_worse(self) -> bool:
        return self.after > MOST_DEARER_RATIO * self.before

    def sentence(self) -> str:
        unit = f"times {BASELINE}" if self.is_relative else "µs"
        return (
            f"{self.route}: CPU of a request {self.before:.3g} {unit} before, {self.after:.3g} now "
            f"({self.after / self.before - 1:+.0%}){': dearer' if self.is_worse else ''}"
        )


def read(path: Path) -> Mapping[str, Any]:
    """The document of an earlier run. Raises ServerFailed where it is none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise ServerFailed(f"--against {path} can't be read: {exc}") from exc
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ServerFailed(f"--against {path} is no result of `python -m benchmarks.run`")
    return document


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """One for each route that was measured in both."""
    then, now = _cpu(before), _cpu(after)
    found = []
    for route in dict.fromkeys(route for route, name in now if name == OURS):
        ours_then, ours_now = then.get((route, OURS)), now[route, OURS]
        if ours_then is None:
            continue
        stock_then, stock_now = then.get((route, BASELINE)), now.get((route, BASELINE))
        if stock_then is None or stock_now is None:
            found.append(Change(route, ours_then, ours_now, is_relative=False))
        else:
            found.append(Change(route, ours_then / stock_then, ours_now / stock_now, is_relative=True))
    return found


def _cpu(document: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    return {
        (one["route"], one["server"]): one["cpu_microseconds"]
        for one in document["summaries"]
        if one.get("cpu_microseconds")
    }
