"""The line at which a worker is, while C code in it keeps the GIL and nothing of it can answer.

Its faulthandler has written the stacks into a pipe, without the GIL (see insight.stalls); the worker reads them when it
can. Here they are copied out of the pipe with tee(2), which takes nothing away. On Linux only; elsewhere the page says
what blocks when it is over.
"""

import logging
import os
import sys
from typing import Any

from ..insight import stacks

logger = logging.getLogger(__name__)

NOT_WAITING = 2  # SPLICE_F_NONBLOCK
MOST_BYTES = 65_536


def peek(pid: int, where: Any) -> dict[str, Any] | None:
    """`where` is what the worker said about its pipe: {"pipe"}. The blamed line, and the stack."""
    if sys.platform != "linux" or not isinstance(where, dict) or not isinstance(where.get("pipe"), int):
        return None
    try:
        text = _copy(f"/proc/{pid}/fd/{where['pipe']}").decode("utf-8", "replace")
    except OSError as exc:
        logger.debug("what faulthandler wrote in %s can't be seen: %s", pid, exc)
        return None
    dumps = stacks.of_dump(text)
    if not dumps:
        return None
    guilty = stacks.guilty(dumps[0])  # the last one may be cut short
    return {"line": guilty.place if guilty else "", "stack": [str(call) for call in dumps[0]], "holds_gil": True}


def _copy(path: str) -> bytes:
    import ctypes  # memory for what hardly ever happens

    theirs = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ours, our_end = os.pipe2(os.O_NONBLOCK)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.tee(theirs, our_end, ctypes.c_size_t(MOST_BYTES), NOT_WAITING) <= 0:
            return b""
        return os.read(ours, MOST_BYTES)
    finally:
        for descriptor in (theirs, ours, our_end):
            os.close(descriptor)
