"""threading's locks, for greenlets and real threads alike. Conditions, events and semaphores are CPython's, over these.

gevent's locks lose wake-ups between real threads, and make hubs in them.
"""

import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NoReturn, Protocol

from gevent import monkey
from greenlet import getcurrent, greenlet

from ... import clock
from ...in_flight import CURRENT, FOREVER, OWN, UNLOCKED, TimedWait
from ..parking import Waiter, WaitQueue, new_lock, tries, waiter

TIMEOUT_MAX: float = sys.modules["_thread"].TIMEOUT_MAX
_frame = sys._getframe
_STANDARD = os.path.dirname(threading.__file__)
# What makes locks for others: a lock of theirs was made where they were called.
MAKERS = frozenset(
    os.path.join(_STANDARD, *path.split("/")) for path in ("threading.py", "queue.py", "concurrent/futures/thread.py")
) | {__file__}
CONDITION_WAIT = threading.Condition.wait.__code__
PARTS = frozenset(kind.__init__.__code__ for kind in (threading.Semaphore, monkey.get_original("threading", "Event")))
FUTURES = os.path.join(_STANDARD, "concurrent", "futures", "_base.py")  # a future is waited for as a lock is
# The owner of a lock: the greenlet, its request, the code and the instruction that took it.
Note = tuple[object, object, CodeType, int]


class Observer(Protocol):
    """A listener that is told who has which lock, and who waits."""

    def taken(self, owner: object, frame: FrameType) -> Note:
        """Return the lock's `note` for as long as the greenlet `owner` holds it. `frame` is of this module."""

    def waits(self, lock: Any, wait: Callable[[], bool]) -> bool:
        """Call `wait`, and return what it does."""


# One for the process.
observer: Observer | None = None


class Mutex(WaitQueue):
    """The common part of both locks: `owner` is the greenlet that has it, as far as it is known.

    `made_in` and `made_at` are the code and the instruction that made it; None for a word: what a waiter of a condition
    waits for, and somebody else releases. `is_noted` says whether its owner is noted, by `note`, and by `mark` if
    it is a request's own greenlet (see Record.lock_mark). Not for parts of the standard library's conditions, events,
    semaphores, futures and threads: nobody has those while waiting, or while code of the application runs.
    """

    __slots__ = ("is_noted", "made_at", "made_in", "mark", "note")

    mark: object
    note: Note | None
    is_noted: bool
    made_in: CodeType | None
    made_at: int

    @property
    def owner(self) -> greenlet | None:
        raise NotImplementedError

    def acquire_slowly(self, blocking: bool, timeout: float) -> bool:
        """It is not free. Returns False where the caller's own time is over, or ends early with its request."""
        if not blocking or timeout == 0:
            tries.failed()
            return False
        detail = "condition" if self.is_signal() else "lock"
        with TimedWait("lock", detail, None if timeout < 0 else timeout, UNLOCKED if self.made_in is None else OWN):
            return self.wait_for(timeout)
        return False

    def is_signal(self) -> bool:
        """Whether this is a Condition.wait of the application's own, and not that of a future."""
        if self.made_in is not None:
            return False
        frame: FrameType | None = _frame(1)
        while frame is not None and frame.f_code is not CONDITION_WAIT:
            if frame.f_code.co_filename != __file__:
                return False
            frame = frame.f_back
        caller = None if frame is None else frame.f_back
        return caller is not None and caller.f_code.co_filename != FUTURES

    def note_owner(self, me: object) -> None:
        """The greenlet `me` has just taken it. Called by what has: from there the line is looked for."""
        record = CURRENT.get()
        if record is not None and record.greenlet is me:
            self.mark = record.lock_mark
        if observer is not None:
            self.note = observer.taken(me, _frame(1))

    def wait_for(self, timeout: float, *, is_endable: bool = True) -> bool:
        until = FOREVER if timeout < 0 else clock.now() + timeout
        me = waiter(self.owner)
        if observer is None or not self.is_noted:
            return self.wait(me, until, is_endable=is_endable)
        return observer.waits(self, lambda: self.wait(me, until, is_endable=is_endable))

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {_name(self)!r} object")


def check(blocking: bool, timeout: float) -> None:
    """Refuse what CPython refuses."""
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")


def maker() -> tuple[bool, CodeType, int]:
    """Return `is_noted`, `made_in` and `made_at` of a lock from whose `__init__` this is called."""
    try:
        frame = _frame(2)
    except ValueError:  # made by C code at the bottom of a greenlet
        frame = _frame(1)
    is_part = frame.f_code in PARTS
    while frame.f_code.co_filename in MAKERS and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    return not is_part and code.co_filename != FUTURES, code, frame.f_lasti


class Lock(Mutex):
    """threading.Lock."""

    __slots__ = ("_block", "owner")

    owner: greenlet | None

    def __init__(self) -> None:
        super().__init__()
        self._block = new_lock()
        self.owner = self.note = self.mark = None
        self.is_noted, self.made_in, self.made_at = maker()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if timeout != -1:
            check(blocking, timeout)
        if not self._block.acquire(False) and not self.acquire_slowly(blocking, timeout):
            return False
        try:
            self.owner = me = getcurrent()
        except RuntimeError:
            return True  # the interpreter ends: nobody else runs any more
        if self.is_noted:
            self.note_owner(me)
        return True

    __enter__ = acquire

    def try_quickly(self) -> bool:
        """Take it if it is free, without a note: for a few instructions of ours, see uncontended."""
        return bool(self._block.acquire(False))

    def release(self, *exc_info: object) -> None:
        self.owner = self.note = self.mark = None
        if not self.waiters:
            self._block.release()
            if self.waiters:
                self.wake()
            return
        heir = self.heir() if self._block.locked() else None
        if heir is None:
            self.free()
        else:
            hand_over(heir)

    __exit__ = release

    def locked(self) -> bool:
        return bool(self._block.locked())

    def is_free(self) -> bool:
        return not self._block.locked()

    def try_take(self, waiter: Waiter) -> bool:
        return bool(self._block.acquire(False))

    def free(self) -> None:
        self._block.release()
        self.wake()

    def __init_subclass__(cls, **options: Any) -> None:
        raise TypeError("type '_thread.lock' is not an acceptable base type")  # as CPython's; its RLock is one

    # Older names, which CPython has as well.
    acquire_lock, release_lock, locked_lock = acquire, release, locked

    # Of Condition. Taking a lock back after a wait is never ended: `with condition` will release it.

    def _is_owned(self) -> bool:
        return self.locked()

    def _release_save(self) -> None:
        self.release()

    def _acquire_restore(self, state: None) -> None:
        if not self._block.acquire(False):
            self.wait_for(-1, is_endable=False)
        self.owner = me = getcurrent()
        if self.is_noted:
            self.note_owner(me)

    def _at_fork_reinit(self) -> None:
        self._block._at_fork_reinit()
        self.waiters.clear()
        self.owner = self.note = self.mark = None

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} {_name(self)} object at {id(self):#x}>"


def allocate_lock() -> Lock:
    """threading._allocate_lock, by which Condition.wait makes words, and others locks: threading._RLock, libraries."""
    return word() if _frame(1).f_code is CONDITION_WAIT else Lock()


def word() -> Lock:
    lock = Lock.__new__(Lock)
    lock.waiters = []
    lock._block = new_lock()
    lock.owner = lock.note = lock.mark = lock.made_in = None
    lock.made_at = 0
    lock.is_noted = False
    return lock


class RLock(Mutex):
    """threading.RLock. Its owner is known in the same moment: a signal handler in between may take it again."""

    __slots__ = ("_again", "_owners")

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()
        # At most one: dict.setdefault takes it, and says who has it.
        self._owners: dict[str, Any] = {}
        # How often its owner has taken it once more.
        self._again = 0
        self.note = self.mark = None
        self.is_noted, self.made_in, self.made_at = maker()

    @property
    def owner(self) -> greenlet | None:
        return self._owners.get("owner")

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if timeout != -1:
            check(blocking, timeout)
        try:
            me = getcurrent()
        except RuntimeError:
            return True  # the interpreter ends: nobody else runs any more
        if self._owners.get("owner") is me:
            self._again += 1
            return True
        if self._owners.setdefault("owner", me) is not me and not self.acquire_slowly(blocking, timeout):
            return False
        if self.is_noted:
            self.note_owner(me)
        return True

    __enter__ = acquire

    def release(self, *exc_info: object) -> None:
        try:
            me = getcurrent()
        except RuntimeError:
            return
        if self._owners.get("owner") is not me:
            raise RuntimeError("cannot release un-acquired lock")
        if self._again:
            self._again -= 1
            return
        self.note = self.mark = None
        if self.waiters:
            self.free()
            return
        del self._owners["owner"]
        if self.waiters:
            self.wake()

    __exit__ = release

    def locked(self) -> bool:
        return bool(self._owners)

    def is_free(self) -> bool:
        return not self._owners

    def try_take(self, waiter: Waiter) -> bool:
        return self._owners.setdefault("owner", waiter.greenlet) is waiter.greenlet

    def free(self) -> None:
        heir = self.heir() if self.waiters else None
        if heir is not None:
            self._owners["owner"] = heir.greenlet
            hand_over(heir)
            return
        del self._owners["owner"]
        if self.waiters:
            self.wake()

    def _is_owned(self) -> bool:
        return self._owners.get("owner") is getcurrent()

    def _recursion_count(self) -> int:
        return self._again + 1 if self._is_owned() else 0

    def _release_save(self) -> int:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        again, self._again = self._again, 0
        self.note = self.mark = None
        self.free()
        return again

    def _acquire_restore(self, again: int) -> None:
        me = getcurrent()
        if self._owners.setdefault("owner", me) is not me:
            self.wait_for(-1, is_endable=False)
        self._again = again
        if self.is_noted:
            self.note_owner(me)

    def _at_fork_reinit(self) -> None:
        self._owners.clear()
        self.waiters.clear()
        self._again = 0
        self.note = self.mark = None

    def __repr__(self) -> str:
        state, owner = ("locked", id(self.owner)) if self._owners else ("unlocked", 0)
        count = self._again + 1 if owner else 0
        return f"<{state} {_name(self)} object owner={owner} count={count} at {id(self):#x}>"


RLock.__module__ = "_thread"  # as CPython's: trio asks


def hand_over(heir: Waiter) -> None:
    heir.is_given = True
    heir.wake()


def _name(lock: Mutex) -> str:
    return "_thread.lock" if isinstance(lock, Lock) else "_thread.RLock"
