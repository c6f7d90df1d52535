"""Words that all verdicts use: lengths of time, counts, lines."""

import functools
import os
from collections.abc import Iterable
from typing import Any

from ...insight import stacks
from ..collect import Moment


def duration(seconds: float) -> str:
    if seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def innermost(stack: Any) -> str:
    return str(stack[0]) if stack else ""


def own_line(stack: Any) -> str:
    """The innermost call of the application's own code, as `file:line function`."""
    return next((str(call) for call in stack if _is_own(str(call).rpartition(":")[0])), innermost(stack))


@functools.cache
def _is_own(file: str) -> bool:
    """Files of packages are shown without the folder they are installed in, so they are not found from here."""
    return os.path.exists(file) and not stacks.is_installed(os.path.abspath(file))


def requests(count: float) -> str:
    return count_of(int(count), "request")


def count_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def middle(weighted: Iterable[tuple[float, float]]) -> float:
    """The median of (value, how often); 0.0 of nothing."""
    rows = sorted(weighted)
    left = sum(count for _, count in rows) / 2
    for value, count in rows:
        left -= count
        if left < 0:
            return value
    return rows[-1][0] if rows else 0.0


def size(count: float) -> str:
    """Bytes: "5.2 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def window(moment: Moment) -> str:
    """How long the window is that counts are of: "15 s"."""
    return f"{max(1, round(moment.window_seconds))} s"
