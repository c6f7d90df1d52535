"""The errors in a server's log."""

import re
from collections.abc import Callable

from .reading.places import shown_of

FRAME = re.compile(r'\s+File "([^"]+)", line (\d+)')
RAISED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Timeout))\b")
BEHIND_STACK = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")


def crash(output: str, is_own: Callable[[str], bool]) -> tuple[str, str]:
    """The words of faulthandler's last report in a server's log, and the innermost own line of the thread that crashed.

    Its stacks have the most recent call first.
    """
    _, found, report = output.rpartition("Fatal Python error: ")
    if not found:
        return "", ""
    crashed = report.partition("Current thread")[2].partition("\n\n")[0]
    places = (f"{shown_of(frame[1])}:{frame[2]}" for frame in FRAME.finditer(crashed))
    return report.partition("\n")[0].strip(), next((place for place in places if is_own(place)), "")


def last_error(output: str, is_own: Callable[[str], bool]) -> tuple[str, str]:
    """The last exception in a server's log, without its message, and its innermost own line."""
    place, error = "", ""
    is_in_stack = False
    for line in output.splitlines():
        frame = FRAME.match(line)
        if frame is not None:
            is_in_stack = True
            at = f"{shown_of(frame[1])}:{frame[2]}"
            if is_own(at):
                place = at
        # Behind a stack whatever is not indented is the exception: not all names say so (`botocore...NoSuchBucket`).
        raised = (BEHIND_STACK if is_in_stack else RAISED).match(line)
        if raised is not None:
            error = raised[1]
            is_in_stack = False
    return error, place
