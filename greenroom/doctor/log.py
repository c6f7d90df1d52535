"""The errors in a server's log."""

import re
from collections.abc import Callable

from .reading.places import shown_of


def last_error(output: str, is_own: Callable[[str], bool]) -> tuple[str, str]:
    """The last exception in a server's log, without its message, and its innermost own line."""
    place, error = "", ""
    for line in output.splitlines():
        frame = re.match(r'\s+File "([^"]+)", line (\d+)', line)
        if frame is not None:
            at = f"{shown_of(frame[1])}:{frame[2]}"
            if is_own(at):
                place = at
        raised = re.match(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Timeout))\b", line)
        if raised is not None:
            error = raised[1]
    return error, place
