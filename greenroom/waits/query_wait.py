"""The wait at one PostgreSQL connection's socket: with a watcher that is kept, an end in time, and cancelling.

    wait ── answer ──────────────────────────────> return
      └── time is over ── cancel in PostgreSQL ──> its answer ("canceling statement ...") ──> return
                                └── no answer in GRACE_SECONDS ──> Unanswered: psycopg2 closes the connection

A connection goes on being used only when its answer has come and the request to cancel was delivered: else that
request could end the next query, or the next query read this one's answer.
"""

import weakref
from collections.abc import Callable
from select import POLLIN, POLLOUT
from typing import Any

import psycopg2
from gevent import monkey
from gevent.hub import get_hub
from greenlet import getcurrent
from psycopg2 import extensions
from psycopg2.errors import QueryCanceled

from .. import clock, deadline, observing
from ..errors import BudgetSpent
from ..in_flight import EVERYWHERE, Record, Wait, current
from ..timers import Timer
from . import parking, peers
from .libpq import Cancel, cancel_in_thread
from .polling import READ, WRITE
from .threads import ThreadRecord, is_loop_thread

select_poll = monkey.get_original("select", "poll")
# From the end of the budget until the connection is given up.
GRACE_SECONDS = 0.04
# The same for one that several use at once: nobody may be there to open it again.
SHARED_GRACE_SECONDS = 2.0
# How often that begins anew because the loop was late, and not PostgreSQL.
MOST_LATE = 5
# How often a wait in a real thread, which nobody can end, looks whether its request goes on.
LOOK_AGAIN_SECONDS = 0.5
# How often an idle connection that has something to say is listened to before it is taken for a live one.
LAST_WORDS = 3
POLL_OK, POLL_READ, POLL_WRITE = extensions.POLL_OK, extensions.POLL_READ, extensions.POLL_WRITE
# Statements are shown, not parsed: the beginning says which one it is.
SHOWN_CHARACTERS = 200


class Silent(psycopg2.OperationalError):
    """PostgreSQL said nothing for too long, or did not let us in in time; the connection is closed."""


class Unanswered(QueryCanceled):
    """The request's time was over and PostgreSQL did not answer the cancelling; this one connection is closed."""

    is_only_this_connection = True  # for pool.py: the others are as good as they were


class QueryWait:
    """One connection's side of the wait. `sql` is what it waits for, `greenlet` who waits, `record` for which request.

    `heard_at` is when the server last answered, `statements` how many it was sent, `silence_seconds` a bound of this
    connection's own on how long it may say nothing. `begun_for` is the request that the transaction was begun for,
    `copying` the COPY that is under way, `copied_by` the greenlet that moves its data, and `turns` are the others that
    wait to use the connection (two_users.py). `note` is what the observer keeps of its user.
    """

    __slots__ = (
        "begun_for",
        "copied_by",
        "copying",
        "file_number",
        "greenlet",
        "has_ended_in_rollback",
        "heard_at",
        "is_cut",
        "loop",
        "note",
        "peer",
        "polled",
        "poller",
        "record",
        "silence_seconds",
        "sql",
        "statements",
        "timers",
        "turns",
        "watcher",
    )

    def __init__(self) -> None:
        self.watcher: Any = None
        self.timers: dict[float, Any] = {}
        self.poller: Any = None
        self.polled = -1
        self.loop: Any = None
        self.file_number = -1
        self.greenlet: Any = None
        self.record: Record | None = None
        self.sql = ""
        self.copied_by: Any = None
        self.turns: parking.WaitQueue | None = None
        self.is_cut = False
        self.heard_at = 0.0
        self.statements = 0
        self.silence_seconds: float | None = None
        self.has_ended_in_rollback = False
        self.peer = peers.Peer()  # of nobody yet
        self.begun_for: weakref.ref[Record] | None = None
        self.copying: Any = None
        self.note: Any = None

    def wait(self, connection: Any, poll: Callable[[], int], silence_seconds: float, *, is_connecting: bool) -> None:
        """Return once `poll()` returns POLL_OK. Raises psycopg2.OperationalError; the connection is then to be closed.

        Runs on: any greenlet; switches.
        """
        state = poll()
        if state == POLL_OK:
            return
        if is_connecting:
            self.sql = f"connect to {place(connection)}"
        self.greenlet = getcurrent()
        if not is_loop_thread():
            try:
                with Wait("query", self.sql[:SHOWN_CHARACTERS]):
                    self._wait_in_thread(connection, poll, state, silence_seconds, is_connecting)
            finally:
                self.greenlet = None
                self.next_turn()
            return
        record = self.record = current()
        self.is_cut = False
        try:
            if record is not None and observing.on_query is not None and not is_connecting:
                observing.on_query(record, connection, self)
            if state == POLL_READ and self.watcher is not None and not is_connecting:
                state = self._wait_once(poll, silence_seconds)
            if state != POLL_OK:
                with Wait("query", self.sql[:SHOWN_CHARACTERS], EVERYWHERE):
                    self._wait(connection, poll, state, silence_seconds, is_connecting)
        except BaseException as exc:
            if not is_connecting and not isinstance(exc, Unanswered):
                Cancel(connection, _nothing)  # whatever ended the wait: what nobody waits for shall not go on
            self.release()
            raise
        finally:
            self.greenlet = None
            if self.copied_by is None:
                self.record = None
            self.next_turn()

    def user(self) -> Any:
        """The greenlet that waits for an answer on this connection, or moves data over it."""
        return self.copied_by if self.greenlet is None else self.greenlet

    def next_turn(self) -> None:
        """Let the next one look whether it may use the connection: it runs when this greenlet waits or ends."""
        if self.turns is not None and self.turns.waiters:
            self.turns.wake()

    def _wait_once(self, poll: Callable[[], int], silence_seconds: float) -> int:
        """Nearly all waits: until the socket says something, or time is over; the state afterwards.

        `_wait` is for all others, and goes on where this ends.
        """
        hub: Any = get_hub()
        if self.loop is not hub.loop:
            return POLL_READ
        timer = self.timers.get(silence_seconds)
        if timer is None:
            timer = self.timers[silence_seconds] = Timer(hub.loop, silence_seconds, "silence")
        watcher, woken = self.watcher, self.greenlet.switch
        with Wait("query", self.sql[:SHOWN_CHARACTERS], EVERYWHERE):
            timer.start(woken, None)
            watcher.start(woken, self)
            try:
                is_heard = hub.switch() is self
            except BudgetSpent:
                is_heard, self.is_cut = False, True
            finally:
                watcher.callback = self._stirred
                timer.stop()
        if not is_heard:
            return POLL_READ
        self.heard_at = self.peer.heard_at = clock.now()
        return poll()

    def _wait(
        self, connection: Any, poll: Callable[[], int], state: int, silence_seconds: float, is_connecting: bool
    ) -> None:
        hub: Any = get_hub()
        now = clock.now()
        silent_at = now + silence_seconds
        while state != POLL_OK:
            if self.is_cut:
                if is_connecting:
                    raise Unanswered(f"no connection to {place(connection)} before the request's time was over")
                self._cancel(connection, poll, state, hub)
                return
            if now >= silent_at:
                what = "connect_timeout: no connection" if is_connecting else "no word from PostgreSQL"
                raise Silent(f"{what} within {silence_seconds:g} s ({place(connection)})")
            try:
                is_heard = self._switch(connection, state, hub, silent_at - now)
            except BudgetSpent:
                is_heard, self.is_cut = False, True
            now = clock.now()
            if is_heard:
                if is_connecting:
                    self.release()  # libpq may go on to the next address, whose socket may get the same number
                else:
                    silent_at = now + silence_seconds
                    self.peer.heard_at = now
                state = poll()
        self.heard_at = now

    def _wait_in_thread(
        self, connection: Any, poll: Callable[[], int], state: int, silence_seconds: float, is_connecting: bool
    ) -> None:
        """Wait in a real thread, without event loop and watcher: an offloaded call, a coroutine or its threads.

        A watcher belongs to the loop that it was made for, and only that loop's thread may touch it.
        Runs on: a real thread; blocks it.
        """
        record = current()
        silent_at = clock.now() + silence_seconds
        while state != POLL_OK:
            left = deadline.remaining_seconds()
            seconds = max(0.0, min(left, silent_at - clock.now(), LOOK_AGAIN_SECONDS))
            poller = select_poll()
            poller.register(connection.fileno(), POLLIN if state == POLL_READ else POLLIN | POLLOUT)
            if not poller.poll(seconds * 1000):
                left = deadline.remaining_seconds()
                if left > 0.0 and clock.now() < silent_at:
                    continue  # the budget may have changed
                if not is_connecting:
                    cancel_in_thread(connection, GRACE_SECONDS)
                if left <= 0.0:
                    if isinstance(record, ThreadRecord):
                        record.has_ended = True
                    raise Unanswered(f"the request's time is over; the connection to {place(connection)} was closed")
                raise Silent(f"no word from PostgreSQL within {silence_seconds:g} s ({place(connection)})")
            silent_at = clock.now() + silence_seconds
            state = poll()
        self.heard_at = clock.now()

    def _cancel(self, connection: Any, poll: Callable[[], int], state: int, hub: Any) -> None:
        """Have the query ended, and see its answer. Raises Unanswered when there is none in time."""
        grace_seconds = GRACE_SECONDS if self.turns is None else SHARED_GRACE_SECONDS
        give_up_at = clock.now() + grace_seconds
        again = MOST_LATE
        with deadline.shield():
            cancel = Cancel(connection, self._wake)
            while state != POLL_OK or not cancel.done:
                left = give_up_at - clock.now()
                if left <= 0.0:
                    raise Unanswered(
                        f"the request's time is over and PostgreSQL did not stop its query within {grace_seconds:g} s; "
                        "the connection was closed"
                    )
                self._switch(connection, state, hub, left)
                if state != POLL_OK:
                    state = poll()
                if again and clock.now() - give_up_at > grace_seconds / 4:
                    # Somebody has kept the loop from turning: the answer may be here, and nobody could see it.
                    again -= 1
                    give_up_at = clock.now() + grace_seconds
        self.heard_at = clock.now()

    def _switch(self, connection: Any, state: int, hub: Any, seconds: float) -> bool:
        """Let others run until the socket is ready, somebody wakes us, or it is time; whether it was the socket.

        Nothing is expected of the socket when `state` is POLL_OK.
        """
        woken = self.greenlet.switch
        loop = hub.loop
        if state == POLL_READ or self.watcher is None or self.loop is not loop:
            self._attach(connection, loop)
        timer = loop.timer(seconds if seconds > 0.0 else 0.0)
        writable = None
        try:
            timer.start(woken, None, update=True)
            if state == POLL_READ:
                self.watcher.start(woken, self)
            elif state == POLL_WRITE:
                writable = loop.io(connection.fileno(), READ | WRITE)
                writable.start(woken, self)
            return hub.switch() is self
        finally:
            self.watcher.callback = self._stirred
            timer.stop()
            timer.close()
            if writable is not None:
                writable.stop()
                writable.close()

    def _attach(self, connection: Any, loop: Any) -> None:
        """Have a watcher for this socket in this loop: the same one as long as nothing changes."""
        file_number = connection.fileno()
        if self.file_number != file_number or self.loop is not loop:
            self.release()
            # Not counted by the loop: a kept connection does not keep a process from ending. A wait has its timer.
            self.watcher = loop.io(file_number, READ, ref=False)
            self.file_number, self.loop = file_number, loop

    def _stirred(self, _: Any) -> None:
        """Something came that nobody waits for: a notice, a notification, the end. Its next user finds out.

        Runs on: hub.
        """
        self.watcher.stop()

    def _wake(self) -> None:
        if self.greenlet is not None:
            get_hub().loop.run_callback(self._switch_to, self.greenlet, self.record)

    def _switch_to(self, greenlet: Any, record: Record | None) -> None:
        if self.greenlet is greenlet and self.record is record:
            greenlet.switch(None)

    def release(self) -> None:
        """Stop watching: before the socket is closed, because its number may be another's a moment later."""
        if self.watcher is not None:
            watchers = self.watcher, *self.timers.values()
            self.watcher = None
            self.timers = {}
            self.file_number = -1
            if is_loop_thread():
                _let_go(*watchers)
            else:
                self.loop.run_callback_threadsafe(_let_go, *watchers)

    def has_ended(self, connection: Any) -> bool:
        """Whether the server has closed its end, as far as the socket tells. Costs no round trip."""
        for _ in range(LAST_WORDS):
            if connection.closed:
                return True
            if not self.has_stirred(connection):
                return False
            try:
                connection.poll()  # takes notices and notifications; libpq sees the end only after the last words
            except psycopg2.OperationalError:
                return True
            self.heard_at = 0.0  # whatever it said, it may have been its last word: ask it
        return False

    def has_stirred(self, connection: Any) -> bool:
        """Whether something has come that nobody waits for, asked of the system."""
        file_number = connection.fileno()
        if self.poller is None or self.polled != file_number:
            self.poller, self.polled = select_poll(), file_number
            self.poller.register(file_number, POLLIN)
        return bool(self.poller.poll(0))


def _let_go(*watchers: Any) -> None:
    """Runs on: the thread of their loop."""
    for watcher in watchers:
        watcher.stop()
        watcher.close()


def _nothing() -> None:
    """Do nothing at the end of a cancellation that nobody waits for."""


def place(connection: Any) -> str:
    """Where a connection leads, for people. Its password is not in it."""
    parameters = extensions.parse_dsn(connection.dsn)
    host = parameters.get("host") or parameters.get("hostaddr") or "the default host"
    return f"{host}:{parameters.get('port', 5432)}"
