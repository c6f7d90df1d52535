"""`os.close` closes at once, and not with the next turn of the loop.

gevent's puts every close off to the next turn of the loop, because libev ends the process when a watcher is on a number
that is not open. So code that closes one end of a pipe and reads the other, as CPython's subprocess does, reads for
ever. And where the number is closed in another way meanwhile (a file object over it) and opened anew by other code,
the late close takes that descriptor away, under its watchers: the process ends after all.

Here a descriptor without a watcher is closed at once. Where greenlets wait for it, the file behind it is closed at once
and they are woken; the number stays in use, as an open /dev/null, until they are gone.
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
