"""The one place through which every wait goes: a greenlet switches to the hub.

Whatever is waited for, and whoever wrote it (patched sockets and locks, gevent's own API, drivers), ends in
`Hub.switch`. Here a wait is made known to the request's record, which keeps the time: see record.py. A request that
never waits has no timer, and costs nothing.

Private to gevent: that everything switches through the class attribute `Hub.switch`. A test holds it fast.
"""

from typing import Any

from gevent.hub import Hub
from greenlet import getcurrent

from ...record import CURRENT, FOREVER, SHIELD, plain_switch


def switch(hub: Any) -> Any:
    """What waits comes here. Returns what it waited for; raises BudgetSpent where the wait is ended."""
    record = CURRENT.get()
    if record is None:
        return plain_switch(hub)
    me = getcurrent()
    record.waiting[me] = SHIELD.get()
    if record.deadline != FOREVER and (record.timer is None or record.is_ended) and me is record.greenlet:
        record.keep_time()
    try:
        return plain_switch(hub)
    finally:
        del record.waiting[me]


def install() -> None:
    """Keep the time of every request of this process from now on."""
    Hub.switch = switch  # type: ignore[method-assign, assignment]
