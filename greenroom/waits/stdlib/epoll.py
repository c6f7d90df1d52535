"""select.epoll and selectors.EpollSelector, which gevent removes: they wait in the event loop, but block real threads.

The descriptor of an epoll object can be waited for like any other: it is readable as long as something that is
registered in it is ready.
"""

import select
import selectors
from typing import Any

import gevent
from gevent import monkey

from ...replacements import Put, part
from ..threads import can_wait
from .calls import Look

_saved: Any = monkey
Epoll: Any = _saved.saved.get("select", {}).get("epoll")
READ = 1  # of the event loop's watchers


@part("waits")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching. Safe to call again."""
    if Epoll is None or hasattr(select, "epoll"):
        return
    put(select, "epoll", epoll)
    plain: Any = monkey.get_original("selectors", "EpollSelector")
    names = {"_selector_cls": epoll, "__module__": "selectors", "__doc__": plain.__doc__}
    put(selectors, "EpollSelector", type("EpollSelector", (plain,), names))


class epoll:
    """select.epoll, which can't be a base class."""

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._use(Epoll(sizehint, flags))

    def _use(self, real: Any) -> None:
        self._real = real
        self.close, self.fileno = real.close, real.fileno
        self.register, self.unregister, self.modify = real.register, real.unregister, real.modify

    @classmethod
    def fromfd(cls, fd: int, /) -> "epoll":
        self = cls.__new__(cls)
        self._use(Epoll.fromfd(fd))
        return self

    @property
    def closed(self) -> bool:
        return bool(self._real.closed)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Return the events that are ready. Switches, unless there are some."""
        real = self._real
        if timeout == 0 or real.closed or not can_wait():
            blocking: list[tuple[int, int]] = real.poll(timeout, maxevents)
            return blocking
        found: list[tuple[int, int]] = real.poll(0, maxevents)
        if found:
            return found
        is_endless = timeout is None or timeout < 0
        with Look("other", "epoll"):
            wait_until_ready(real, None if is_endless else timeout)
            while not (found := real.poll(0, maxevents)) and is_endless:  # another greenlet was quicker
                wait_until_ready(real, None)
        return found

    def __enter__(self) -> "epoll":
        self._real.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def wait_until_ready(real: Any, seconds: float | None) -> None:
    hub: Any = gevent.get_hub()
    with hub.loop.io(real.fileno(), READ) as ready, gevent.Timeout(seconds, False):  # type: ignore[arg-type]
        hub.wait(ready)


epoll.__module__ = "select"
