"""The one place through which every wait goes: a greenlet switches to the hub.

Every wait, in whatever package (patched sockets and locks, gevent's own API, drivers), ends in
`Hub.switch`. Here a wait is made known to the request's record, which keeps the time: see in_flight.py. A request that
never waits has no timer, and costs nothing.

Private to gevent: that everything switches through the class attribute `Hub.switch`. A test holds it fast.
"""

from typing import Any, Protocol

from gevent.hub import Hub
from greenlet import getcurrent

from ...forking import parents_hubs, stay_behind
from ...in_flight import CURRENT, FOREVER, SHIELD, plain_switch
from ...replacements import Put, part

# What was found there: gevent's own, or a wrapper that somebody has put over it, who wants to know of each wait.
found_switch: Any = plain_switch


def switch(hub: Any) -> Any:
    """Wait in the hub and return the value the wait ends with. Raises BudgetSpent where it is ended."""
    record = CURRENT.get()
    if record is None:
        try:
            return found_switch(hub)
        finally:
            if parents_hubs and hub in parents_hubs:
                stay_behind()
    me = getcurrent()
    record.waiting[me] = SHIELD.get()
    if record.deadline != FOREVER and (record.timer is None or record.is_ended) and me is record.greenlet:
        record.keep_time()
    try:
        return found_switch(hub)
    finally:
        if parents_hubs and hub in parents_hubs:
            stay_behind()
        record.waiting.pop(me, None)  # who waited within this wait, the garbage collector say, has done so before


class Parked(Protocol):
    is_woken: bool
    is_parked: bool


def switch_unless_woken(hub: Hub, waiter: Parked) -> None:
    """As `switch`, with a last look at whether it is still to be waited for.

    No other code can run between this look and the switch, be it a signal handler's or the garbage collector's: there
    is no call in Python.
    """
    record = CURRENT.get()
    if record is None:
        waiter.is_parked = True
        try:
            if not waiter.is_woken:
                plain_switch(hub)
        finally:
            if parents_hubs and hub in parents_hubs:
                stay_behind()
        return
    me = getcurrent()
    record.waiting[me] = SHIELD.get()
    if record.deadline != FOREVER and (record.timer is None or record.is_ended) and me is record.greenlet:
        record.keep_time()
    try:
        waiter.is_parked = True
        if not waiter.is_woken:
            plain_switch(hub)
    finally:
        if parents_hubs and hub in parents_hubs:
            stay_behind()
        record.waiting.pop(me, None)


@part("waits")
def install(put: Put) -> None:
    """Keep the time of every request of this process from now on."""
    global found_switch
    found = vars(Hub).get("switch")
    if found is not None and found is not switch:
        found_switch = found
    put(Hub, "switch", switch)
