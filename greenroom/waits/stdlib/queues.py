"""queue.SimpleQueue for greenlets and real threads alike; the other queues are CPython's, over our locks."""

import queue
from collections import deque
from types import GenericAlias
from typing import Any, NoReturn

from ... import clock
from ...in_flight import FOREVER, UNLOCKED, TimedWait
from ..parking import Waiter, WaitQueue, waiter


class SimpleQueue(WaitQueue):
    """queue.SimpleQueue: what __del__ and signal handlers may put something into, whatever goes on."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        super().__init__()
        self._items: deque[Any] = deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._items.append(item)
        if self.waiters:
            self.wake()

    def put_nowait(self, item: Any) -> None:
        self.put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        try:
            return self._items.popleft()
        except IndexError:
            pass
        if not block:
            raise queue.Empty
        me = waiter()
        with TimedWait("lock", "queue", timeout, UNLOCKED):
            if self.wait(me, FOREVER if timeout is None else clock.now() + timeout):
                return me.value
        raise queue.Empty

    def get_nowait(self) -> Any:
        return self.get(False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)

    def is_free(self) -> bool:
        return bool(self._items)

    def try_take(self, waiter: Waiter) -> bool:
        try:
            waiter.value = self._items.popleft()
        except IndexError:
            return False
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle '_queue.SimpleQueue' object")

    __class_getitem__: Any = classmethod(GenericAlias)
