"""Requests that fail."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from .finding import BAD, WATCH, Finding, finding

ERROR_SHARE = 0.05
MOST_FAIL = 0.5


def failing(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    if total["error_rate"] < 0.1 or total["error_rate"] < ERROR_SHARE * total["requests_rate"]:
        return []
    worst = max(seen["routes"], key=lambda row: row["errors"], default=None)
    where = f", most of them in {worst['route']}" if worst and worst["errors"] else ""
    return [
        finding(
            BAD if total["error_rate"] >= MOST_FAIL * total["requests_rate"] else WATCH,
            f"{total['error_rate']:.3g} of {total['requests_rate']:.3g} requests/s fail (status 500 or more){where}.",
            "The application's log has the tracebacks.",
            cause="errors",
        )
    ]
