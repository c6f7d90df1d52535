"""Leftovers of a test, which were not there before it: each would outlive a request in the same way."""

import gc
import socket
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import gevent

from .. import clock
from ..frames import line_of
from ..insight.locks import Locks
from ..waits.stdlib import locks
from ..waits.stdlib.locks import Lock, RLock

# A test that has just ended may have something about to end.
GRACE_SECONDS = 0.05
OURS = (str(Path(gevent.__file__).parent), str(Path(__file__).resolve().parents[1]), threading.__file__)


class Leftovers:
    """Made before a test; `found()` afterwards is a sentence for each."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.locks = {id(lock) for lock in _locks() if lock.locked()}
        self.listeners = {id(sock) for sock in _listeners()}
        self.holders = {id(holder) for holder, _ in _database_holders()}
        self.greenlets: weakref.WeakSet[Any] = weakref.WeakSet()
        gevent.Greenlet.add_spawn_callback(self.greenlets.add)
        self.takers = Locks()  # they note the lines, unless somebody else does already
        if locks.observer is None:
            self.takers.install()

    def stop(self) -> None:
        gevent.Greenlet.remove_spawn_callback(self.greenlets.add)
        self.takers.remove()

    def found(self) -> list[str]:
        """Runs on: the main greenlet."""
        self.stop()
        if found := self._found():
            gevent.sleep(GRACE_SECONDS)
            found = self._found()
        return found

    def _found(self) -> list[str]:
        # Without those that somebody else started and `threading` only met: real threads, of our own among them, have
        # no end that it knows; greenlets are told below.
        known = [thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]
        threads = [thread for thread in known if thread not in self.threads and thread.is_alive()]
        idents = {thread.ident for thread in known}
        started = {id(each): each for each in self.greenlets}
        greenlets = [each for each in self.greenlets if not each.dead and id(each) not in idents]
        return [
            *(
                f"the thread {thread.name!r} still runs{_in_line(thread)}"
                + (f", started at {_spawned_at(started[thread.ident])}" if thread.ident in started else "")
                for thread in threads
            ),
            *(f"the greenlet {_name(each)} still runs, spawned at {_spawned_at(each)}" for each in greenlets),
            *(f"a lock is still held by {_owner(lock)}{_taken_at(lock)}" for lock in _locks() if self._is_new(lock)),
            *(
                f"a socket still listens on {sock.getsockname()}"
                for sock in _listeners()
                if id(sock) not in self.listeners
            ),
            *(
                f"a database connection is still checked out: {said}"
                for holder, said in _database_holders()
                if id(holder) not in self.holders
            ),
        ]

    def _is_new(self, lock: Any) -> bool:
        """Return whether the test has left this lock taken; a running thread's lock is reported with the thread."""
        owner = lock.owner if id(lock) not in self.locks and lock.locked() else None
        return owner is not None and (owner is gevent.getcurrent() or bool(owner.dead))


def _locks() -> list[Any]:
    return [each for each in gc.get_objects() if type(each) in (Lock, RLock) and each.is_noted]


def _listeners() -> list[Any]:
    found = []
    for each in gc.get_objects():
        # Not isinstance(): it asks objects that have a `__class__` of their own, and a lazy one is made by that.
        if not issubclass(type(each), socket.socket):
            continue
        try:
            if each.fileno() >= 0 and each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(each)
        except OSError:
            continue  # closed meanwhile
    return found


def _database_holders() -> list[tuple[Any, str]]:
    """Holders of connections of SQLAlchemy's, with a sentence for each."""
    pool: Any = sys.modules.get("greenroom.waits.pool")
    if pool is None:
        return []
    now = clock.now()
    return [(holder, holder.describe(now)) for each in list(pool.pools) for holder in list(each._holders.values())]


def _in_line(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    code = getattr(target, "__code__", None)
    return f", running {code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code is not None else ""


def _name(each: Any) -> str:
    return str(getattr(getattr(each, "_run", None), "__qualname__", each))


def _spawned_at(each: Any) -> str:
    frame = getattr(each, "spawning_stack", None)
    while frame is not None and frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown line"


def _taken_at(lock: Any) -> str:
    """Where the lock was taken, and where it was made."""
    taken = f", taken at {_line(*lock.note[2:])}" if lock.note is not None else ""
    return f"{taken} (made at {_line(lock.made_in, lock.made_at)})"


def _line(code: Any, instruction: int) -> str:
    return f"{code.co_filename}:{line_of(code, instruction)}"


def _owner(lock: Any) -> str:
    owner = lock.owner
    return "the test itself" if owner is gevent.getcurrent() else f"greenlet {_name(owner)}"
