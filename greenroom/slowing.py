"""Code that goes on waiting after its time and its grace: named once in the log, and slowed down to burn no core."""

import logging
from types import FrameType
from typing import Any

from . import redaction

logger = logging.getLogger(__name__)

# How many waits may be refused after the grace before whoever goes on is slowed down: nested clean-ups unwind without
# being held up. Then each takes longer, up to LONGEST_REFUSAL_SECONDS.
QUICK_REFUSALS = 10
REFUSAL_SECONDS = 0.005
LONGEST_REFUSAL_SECONDS = 1.0
# Packages whose lines explain no loop, unless there is no other.
NOT_THE_APPLICATION = ("greenroom", "gevent", "threading", "queue", "socket", "ssl", "subprocess", "selectors")


def seconds(refusals: int) -> float:
    """How long the next refusal takes, after so many."""
    if refusals < QUICK_REFUSALS:
        return 0.0
    return min(LONGEST_REFUSAL_SECONDS, refusals * REFUSAL_SECONDS)


def tell(refusals: int, environ: Any, why: str, frame: FrameType | None) -> None:
    """Name the request and its line, the moment it begins to be slowed down. `environ` is the request's, or None."""
    if refusals != QUICK_REFUSALS:
        return
    environ = environ or {}
    # Never the query, which may hold secrets.
    name = f"{environ.get('REQUEST_METHOD', '')} {redaction.path(environ.get('PATH_INFO', ''))}".strip()
    logger.warning(
        "%s goes on waiting although its time and its grace are over (%s): at %s. Each wait raises a "
        "TimeoutError now, and is slowed down; let it end the loop",
        name or "a request",
        why,
        place_of(frame),
    )


def place_of(frame: FrameType | None) -> str:
    """The innermost line that is neither ours nor of what waits, and the function it is in."""
    first = frame
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in NOT_THE_APPLICATION:
        frame = frame.f_back
    frame = frame or first
    if frame is None:
        return "an unknown line"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
