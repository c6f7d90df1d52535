"""The worker's side of insight: one observer per worker, made when the worker begins to serve."""

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from wsgiref.types import WSGIEnvironment

import gevent
from gevent.hub import Hub

from .. import clock, observing, replacements
from ..gunicorns_parts import Log
from ..in_flight import CURRENT
from ..settings import Settings
from ..waits import peers
from . import greenlets, timing
from .account import Account
from .beside import Beside
from .callers import Callers, caller
from .clients import Clients
from .failures import Failures
from .growth import Growth
from .held_connections import Held
from .locks import MOST_DEADLOCKS, Locks
from .otlp import open_traces
from .queries import Queries
from .recent import Ring
from .routes import Routes
from .slices import Slices
from .stalls import Stalls
from .traces import Traces
from .watch import Watch, thread_id

if TYPE_CHECKING:
    from gevent._types import _Loop

    from ..worker.load import Turns

TICK_SECONDS = 1.0
# Greenlets are counted every so many seconds, and more rarely the more there are: some microseconds each.
TICKS_PER_COUNT = 5
GREENLETS_PER_COUNT = 2000
# Requests that are over wait to be counted until there are so many, or the worker's heart beats.
COUNT_AT_ONCE = 64


logger = logging.getLogger("gunicorn.error")


class Serving(Protocol):
    """A worker's serving part, as far as insight needs it."""

    hub: Hub
    log: Log
    has_access_log: bool

    @property
    def loop(self) -> "_Loop": ...
    @property
    def turns(self) -> "Turns": ...


class Answer(Protocol):
    """A response that has not begun, as far as insight changes it."""

    account: Account | None
    has_timing: bool


class Insight:
    """The insight of one worker. `serving` calls it; everybody may read."""

    def __init__(self, serving: Serving, settings: Settings) -> None:
        self.serving = serving
        self.server_timing = settings.server_timing
        self.has_json_log = settings.access_log_format == "json"
        self.ids = timing.Ids()
        self.start_id = self.ids.start_id
        self.started_at = time.time()
        self.began = clock.now()
        self.routes = Routes()
        self.over: list[Account] = []
        self.ring = Ring()
        # For the scoreboard, where they outlive the worker.
        self.errors = self.expired = 0
        self.stalls = Stalls(settings.stall_threshold_milliseconds / 1000, ring=self.ring)
        self.held = Held()
        self.queries = self.held.queries = Queries(self.held.application)
        self.failures = Failures()
        self.callers = Callers()
        self.clients = Clients()
        self.growth = Growth()
        self.beside = Beside()
        self.traces: Traces | None = None
        self.slices = Slices(serving.hub, serving.turns, self.stalls.threshold_seconds, self.stalls.ended, self.held)
        self.watch = Watch(self.stalls)
        self.locks = Locks()
        self._greenlets: dict[str, int] = {}
        self._count_at = TICKS_PER_COUNT
        self._ticks = 0
        self._ticker = serving.loop.timer(TICK_SECONDS, repeat=TICK_SECONDS, ref=False)

    def start(self) -> None:
        """Runs on: worker start-up, in the loop's thread."""
        self.slices.install()
        self.stalls.start(self.slices, thread_id())
        self.watch.start()
        self.locks.install()
        observing.on_query = self.held.used
        observing.on_statement = self.queries.sqlite
        observing.on_job_changed = self.slices.job_changed
        self.failures.install()
        self.traces = open_traces()
        if self.traces is not None:
            self.traces.install()
            self.failures.on_failed = self.traces.failed
        peers.find_caller = caller
        if self.serving.has_access_log:
            self._explain_access(self.serving.log)
        self._ticker.start(self._tick)

    def _explain_access(self, log: Any) -> None:
        """Let gunicorn's access log know what we know: each line is written in its request's greenlet."""
        plain = log.access

        def access(response: Any, request: Any, environ: dict[str, Any], took: timedelta) -> None:
            account = CURRENT.get()
            if not isinstance(account, Account):
                plain(response, request, environ, took)
            elif self.has_json_log:
                log.access_log.info(timing.access_line(account, environ, response))
            else:
                for name, value in timing.access_fields(account, environ).items():
                    environ[timing.PREFIX + name] = value
                plain(response, request, environ, took)

        replacements.put("gunicorn", (log, "access", access))

    def _tick(self) -> None:
        """Runs on: hub."""
        self._ticks += 1
        if self._ticks >= self._count_at:
            many = len(self.slices.others.references) // GREENLETS_PER_COUNT
            self._count_at = self._ticks + TICKS_PER_COUNT * (1 + many)
            self._greenlets = self.greenlets_by_spawner()
        if self.locks.waiting or self.locks.reported:
            gevent.spawn(self.locks.report)
        self.clients.tick()
        self.growth.tick()
        try:
            self.callers.look(self.slices.live, self.locks.waiting.values())
            self.beside.tick(self.slices.beside, self.slices.others.references)
        except Exception:
            logger.exception("what requests wait for could not be looked at")

    def stop(self) -> None:
        self._ticker.stop()
        self.count()
        self.locks.remove()
        self.failures.remove()
        if self.traces is not None:
            self.traces.remove()
        peers.find_caller = None
        self.growth.stop()
        self.watch.stop()
        self.stalls.stop()
        self.slices.remove()
        self.ring.close()

    def leave_to_parent(self) -> None:
        """In a forked child: look at nothing here. The watch thread and the alarms are the parent's."""
        self.slices.remove()
        self.locks.remove()
        self.stalls.leave_to_parent()

    def deadlocks(self) -> list[dict[str, object]]:
        now = self.locks.now()
        return [deadlock.as_dict(now) for deadlock in self.locks.found[:MOST_DEADLOCKS]]

    def greenlets_by_spawner(self) -> dict[str, int]:
        """Count greenlets by the line that started them, without those of requests. Runs on: the loop's thread."""
        helpers = [one for account in self.slices.live for one in account.helpers or () if not one.dead]
        return greenlets.by_spawner([*self.slices.others.alive(), *helpers])

    def greenlets(self) -> dict[str, object]:
        return {"count": sum(self._greenlets.values()) + len(self.slices.live), "by_spawner": dict(self._greenlets)}

    def begin(self, arrived: float) -> Account:
        """A request's greenlet begins. Runs on: request greenlet; the caller makes the account its current record."""
        account = Account(arrived)
        self.slices.begin(account)
        if self.growth.is_looking:
            self.growth.begin(account)
        return account

    def prepared(self, account: Account, environ: WSGIEnvironment, response: Answer, *, is_peer_trusted: bool) -> None:
        """The environ is known, and the answer not yet."""
        account.id = self.ids.of(environ, is_peer_trusted=is_peer_trusted)
        account.client = self.clients.came(environ, is_peer_trusted=is_peer_trusted)
        response.account = account
        response.has_timing = timing.may_see_timing(self.server_timing, environ, is_peer_trusted=is_peer_trusted)
        if self.traces is not None:
            try:
                self.traces.begin(account, environ)
            except Exception:
                logger.exception("a request could not be traced")

    def finish(self, account: Account) -> None:
        """The request is over. Never raises: what comes after it has to be done.

        It is counted later, many at once: code and data that are at hand take a fifth of the time.
        """
        self.slices.finish(account)
        try:
            account.code = timing.status_of(account)
            if account.holds is not None:
                self.held.finish(account)
            if account.calls is not None:
                for name, calls in account.calls.items():
                    peers.finished(name, calls)
            if self.growth.is_looking:
                self.growth.finish(account)
        except Exception:
            logger.exception("a request could not be counted")
        if not account.route:
            account.route = account.pattern()
        if self.traces is not None:
            try:
                self.traces.finish(account)
            except Exception:
                logger.exception("a request could not be traced")
        account.answer = None
        over = self.over
        over.append(account)
        if len(over) >= COUNT_AT_ONCE:
            self.count()

    def count(self) -> None:
        """Count the requests that are over. Runs on: the loop's thread; called with each beat of the worker's heart."""
        over, self.over = self.over, []
        for account in over:
            status, began, ended = account.code, account.began, account.ended
            try:
                self.routes.add(account, status)
                if account.queries is not None:
                    self.queries.finish(account)
                self.ring.finished(account.route, status, began, ended - began, account.seconds, account.has_waited)
            except Exception:
                logger.exception("a request could not be counted")
            if status >= 500:
                self.errors += 1
            if account.is_ended and not account.is_cut:
                self.expired += 1
