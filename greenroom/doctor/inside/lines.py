"""Which line of the application's own is being run: Python files that somebody of the team can open."""

import os
import sys
from types import FrameType

from ...insight import stacks

OUTERMOST = 200


def is_own(file: str) -> bool:
    return file.endswith(".py") and not stacks.is_installed(file) and not file.startswith(stacks.GREEN)


def own_line(frame: FrameType | None = None) -> str:
    """`file:line` of the innermost own frame; "" when there is none. Runs on: the thread whose frame it is."""
    at: FrameType | None = sys._getframe(1) if frame is None else frame
    steps = 0
    while at is not None and steps < OUTERMOST:
        file = at.f_code.co_filename
        if is_own(file):
            return f"{shown(file)}:{at.f_lineno}"
        at = at.f_back
        steps += 1
    return ""


def shown(file: str) -> str:
    return stacks.shortened(os.path.abspath(file))


def own_stack(frame: FrameType | None = None, most: int = 8) -> list[str]:
    """The own lines of a stack, innermost first."""
    at: FrameType | None = sys._getframe(1) if frame is None else frame
    found: list[str] = []
    while at is not None and len(found) < most:
        if is_own(at.f_code.co_filename):
            found.append(f"{shown(at.f_code.co_filename)}:{at.f_lineno} {at.f_code.co_qualname}")
        at = at.f_back
    return found


def library_between(frame: FrameType | None) -> str:
    """The package that the innermost own line has called and that did it; "" when it did so by itself."""
    at, steps, found = frame, 0, ""
    while at is not None and steps < OUTERMOST:
        file = at.f_code.co_filename
        if is_own(file):
            return found
        _, installed, rest = file.partition("site-packages" + os.sep)
        if installed and not rest.startswith(("greenroom", "gevent")):
            found = rest.partition(os.sep)[0].removesuffix(".py")
        at = at.f_back
        steps += 1
    return ""
