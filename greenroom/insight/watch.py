"""The watch thread: a real thread of the operating system, which looks on while the hub can't.

It uses nothing of gevent's and no lock, and looks at nobody's frames (see safepoint). Its time is short: while it runs
Python the loop waits.
"""

from collections.abc import Callable
from typing import Any

from gevent import monkey

from .stalls import Stalls

_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_start_thread: Callable[..., Any] = monkey.get_original("_thread", "start_new_thread")


class Watch:
    """Looks at the loop's thread all the time; calls each of `others` about once a second."""

    def __init__(self, stalls: Stalls, others: tuple[Callable[[], None], ...] = ()) -> None:
        self.stalls = stalls
        self.others = others
        self.failures = 0
        self.is_stopping = False

    def start(self) -> None:
        _start_thread(self._run, ())

    def stop(self) -> None:
        self.is_stopping = True

    def _run(self) -> None:
        self.stalls.begin_to_look()
        looks = 0
        looks_a_second = max(1, round(1 / self.stalls.look_seconds))
        while not self.is_stopping:
            try:
                self.stalls.look()
                looks += 1
                if looks % looks_a_second == 0:
                    for other in self.others:
                        other()
            except Exception:
                # Must go on looking. Not logged: logging has locks, which a greenlet may hold. The snapshot says it.
                self.failures += 1
            _sleep(self.stalls.look_seconds)


thread_id: Callable[[], int] = monkey.get_original("_thread", "get_ident")
