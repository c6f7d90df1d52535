"""`os.close`, at once.

gevent's puts every close off to the next turn of the loop, because libev ends the process when a watcher is on a number
that is not open. So who closes one end of a pipe and reads the other, as CPython's subprocess does, reads for ever. And
where the number is closed in another way meanwhile (a file object over it), and opened anew by somebody else, the put
off close takes theirs away, under their watchers: the process ends after all.

Here a descriptor that no watcher is on is closed at once. Of one that somebody waits for, what it led to is closed at
once and those who wait are woken; the number stays taken, by nothing, until they are gone.
"""

import os
from collections.abc import Callable
from typing import Any

import gevent.os
from gevent import _hub_local, monkey

from ..replacements import Replace

real_close: Callable[[int], None] = monkey.get_original("os", "close")
late_close: Callable[[int], None] = gevent.os.close


def close(fd: int) -> None:
    """Close a file descriptor."""
    hub: Any = _hub_local.get_hub_if_exists()
    if hub is None or not isinstance(fd, int) or not hub.loop.closing_fd(fd):
        real_close(fd)
        return
    try:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # none left
        late_close(fd)
        return
    os.dup2(nothing, fd, inheritable=False)
    real_close(nothing)
    late_close(fd)


def replace(put: Replace) -> None:
    """Runs on: the main thread, after patching."""
    if os.close is late_close:
        close.__doc__ = real_close.__doc__
        put(os, "close", close)
