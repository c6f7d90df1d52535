"""How answers differ under Greenroom and under a sync worker."""

import re
from collections.abc import Sequence

from .server import Answer


def differences(greenroom: Sequence[Answer], sync: Sequence[Answer]) -> str:
    """How a route's answer differs from that under sync, in words; "" when it does not or nothing can be said."""
    ours = [one for one in greenroom if one.status]
    theirs = [one for one in sync if one.status]
    if len(ours) < 2 or len(theirs) < 2:
        return ""
    if len({one.status for one in theirs}) > 1 or len({one.status for one in ours}) > 1:
        return ""
    if ours[0].status != theirs[0].status:
        return f"status {ours[0].status}, and {theirs[0].status} under sync"
    bodies = {numbers_out(one.body) for one in ours}
    plain = {numbers_out(one.body) for one in theirs}
    if len(bodies) == 1 and len(plain) == 1 and bodies != plain:
        return f"another body ({len(ours[0].body)} bytes, and {len(theirs[0].body)} under sync)"
    return ""


def numbers_out(body: bytes) -> bytes:
    """A body without what is another one in each process: numbers, times, tokens."""
    body = re.sub(rb"[\w.-]*\d[\w.-]*|[A-Za-z0-9_-]{20,}", b"#", body)
    return re.sub(rb"#(?:[\s,:;]+#)*", b"#", body)
