"""The one place through which every wait goes: a greenlet switches to the hub.

Whatever is waited for, and whoever wrote it (patched sockets and locks, gevent's own API, drivers), ends in
`Hub.switch`. Here the wait of a request is refused when its budget is spent, and made known to the request's record,
which ends it when the time has come. Costs 0.3 microseconds a wait; none is added to what does not wait.

Private to gevent: that everything switches through the class attribute `Hub.switch`. A test holds it fast.
"""

from typing import Any

from gevent.hub import Hub
from greenlet import getcurrent

from ... import clock
from ...deadline import SHIELD
from ...errors import BudgetSpent
from ...record import CURRENT, FOREVER

plain_switch = Hub.switch


def switch(hub: Any) -> Any:
    """What waits comes here. Returns what it waited for; raises BudgetSpent."""
    record = CURRENT.get()
    if record is None:
        return plain_switch(hub)
    shield = SHIELD.get()
    if record.deadline != FOREVER:
        if record.ends_at(shield) <= clock.now():
            raise BudgetSpent(record.why())
        if record.timer is None:
            record.waiting[getcurrent()] = shield
            record.keep_time()
    me = getcurrent()
    record.waiting[me] = shield
    try:
        return plain_switch(hub)
    finally:
        del record.waiting[me]


def install() -> None:
    """Bound the waits of every request of this process from now on."""
    Hub.switch = switch  # type: ignore[method-assign, assignment]


def uninstall() -> None:
    Hub.switch = plain_switch  # type: ignore[method-assign]
