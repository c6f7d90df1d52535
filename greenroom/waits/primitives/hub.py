"""The one place through which every wait goes: a greenlet switches to the hub.

Whatever is waited for, and whoever wrote it (patched sockets and locks, gevent's own API, drivers), ends in
`Hub.switch`. Here the wait of a request is refused when its budget is spent, and made known to the request's record,
which ends it when the time has come. What does not wait costs nothing more.

Private to gevent: that everything switches through the class attribute `Hub.switch`. A test holds it fast.
"""

from typing import Any

from gevent import get_hub
from gevent.hub import Hub
from greenlet import getcurrent

from ... import clock, deadline
from ...deadline import SHIELD
from ...errors import BudgetSpent
from ...forking import parents_hubs, stay_behind
from ...record import BARE, CURRENT, FOREVER, Record
from ..threads import can_wait
from .loops import break_out

plain_switch = Hub.switch


def switch(hub: Any) -> Any:
    """What waits comes here. Returns what it waited for; raises BudgetSpent."""
    record = CURRENT.get()
    if record is None:
        try:
            return plain_switch(hub)
        finally:
            if parents_hubs and hub in parents_hubs:
                stay_behind()
    shield = SHIELD.get()
    me = getcurrent()
    until = record.deadline
    if until != FOREVER:
        if until <= clock.now() and (not shield or record.ends_at(shield) <= clock.now()):
            break_out(record, hub)
            raise BudgetSpent(record.why())
        record.waiting[me] = shield
        if record.timer is None:
            record.keep_time()
    else:
        record.waiting[me] = shield
    try:
        return plain_switch(hub)
    finally:
        if parents_hubs and hub in parents_hubs:
            stay_behind()
        del record.waiting[me]


def switch_with_timer(hub: Any) -> Any:
    """As `switch`, for who has a timer that ends the wait at the deadline: then the record needs none."""
    record = CURRENT.get()
    if record is None or SHIELD.get():  # how long clean-up may take is known when the budget is spent
        return hub.switch()
    me = getcurrent()
    record.waiting[me] = BARE
    try:
        return plain_switch(hub)
    finally:
        if parents_hubs and hub in parents_hubs:
            stay_behind()
        del record.waiting[me]


def raise_if_spent() -> None:
    """Raises BudgetSpent where a wait would have to: for calls that time out by returning something."""
    if deadline.is_spent():
        record = CURRENT.get()
        raise BudgetSpent(record.why() if record is not None else "")


def refused(record: Record) -> None:
    """A wait that is bounded in its own way has been refused."""
    if can_wait():
        break_out(record, get_hub())


def install() -> None:
    """Bound the waits of every request of this process from now on."""
    Hub.switch = switch  # type: ignore[method-assign, assignment]
    deadline.on_refusal = refused
