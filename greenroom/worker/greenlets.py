"""Greenlets for requests: one that has served before, where nothing in the process can tell it from a new one.

A new greenlet costs 9 microseconds bare and up to 20 under Flask: CPython maps a stack for its frames and takes it away
again, and each of its pages faults. So the greenlet of a finished request is parked and serves the next one, if

    nobody refers to it weakly       thread-locals (gevent), threading.current_thread(), children's `spawning_greenlet`
    nobody has put anything into it  its __dict__ is empty (gevent's spawn_tree_locals, an application's own marks)
    nobody refers to it              a timeout that still runs, a callback still under way, an application's own list

Else it ends, and a new one is made, as for each request before. Its contextvars.Context is taken from it at the end of
the request, so a request begins with an empty one either way. Only its address is left: code that keeps something by
`id(getcurrent())` and never removes it finds it again, but so it is with new greenlets, whose memory is used again.
"""

from collections.abc import Callable
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

from greenlet import getcurrent

from .load import Meter, RequestGreenlet, plain_switch, run_metered

# A parked greenlet keeps some 20 KB. More than this many rarely end without as many beginning meanwhile.
MOST_PARKED = 64


class RequestGreenlets:
    """Runs `run(*arguments)` for one request after the other, each in a greenlet that looks new to it.

    Nothing may escape `run`. Runs on: hub.
    """

    def __init__(self, hub: Any, run: Callable[..., None]) -> None:
        self.hub = hub
        self.run = run
        self.parked: list[RequestGreenlet] = []

    def start(self, meter: Meter, *arguments: Any) -> None:
        """Run until the request first waits."""
        parked = self.parked
        while parked:
            request = parked.pop()
            if getrefcount(request) == UNSHARED:
                break
        else:
            request = RequestGreenlet(self._live, self.hub)
        request.dead = False
        run_metered(request, meter, arguments)

    def clear(self) -> None:
        """End those that are parked."""
        self.parked.clear()

    def _live(self, arguments: tuple[Any, ...]) -> None:
        while True:
            self.run(*arguments)
            arguments = ()
            me: Any = getcurrent()
            me.dead = True
            if getweakrefcount(me) or me.__dict__ or len(self.parked) >= MOST_PARKED:
                return
            me.gr_context = None
            self.parked.append(me)
            del me  # this frame lives on, and would count as somebody who refers to it
            try:
                arguments = plain_switch(self.hub)
            except BaseException:  # GreenletExit from clear(), or thrown late at the request that it had
                self._forget(getcurrent())
                raise
            if getcurrent().dead:  # nobody has started it: a late wake-up for the request that it had
                self._forget(getcurrent())
                return

    def _forget(self, request: Any) -> None:
        if request in self.parked:
            self.parked.remove(request)


def _count_unshared() -> int:
    """Return getrefcount() of an object right after it was popped, when nobody else refers to it."""
    things = [object()]
    thing = things.pop()
    return getrefcount(thing)


UNSHARED = _count_unshared()
