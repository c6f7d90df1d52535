"""What the worker tells insight, and what insight has of it: one per worker, made when the worker begins to serve."""

import time
from datetime import timedelta
from typing import Any

from ..settings import Settings
from . import timing
from .account import Account, Slices
from .routes import Routes
from .stalls import Stalls
from .watch import Watch, thread_id


class Insight:
    """The insight of one worker. `serving` calls it; everybody may read."""

    def __init__(self, serving: Any, settings: Settings) -> None:
        self.serving = serving
        self.server_timing = settings.server_timing
        self.has_json_log = settings.access_log_format == "json"
        self.ids = timing.Ids()
        self.start_id = self.ids.start_id
        self.started_at = time.time()
        self.routes = Routes()
        self.stalls = Stalls(settings.stall_threshold_milliseconds / 1000)
        self.slices = Slices(serving.hub, serving.turns, self.stalls.threshold_seconds, self.stalls.ended)
        self.watch = Watch(self.stalls)

    def start(self) -> None:
        """Runs on: worker start-up, in the loop's thread."""
        self.slices.install()
        self.stalls.start(self.slices, thread_id())
        self.watch.start()

    def stop(self) -> None:
        self.watch.stop()
        self.stalls.stop()
        self.slices.remove()

    def begin(self, arrived: float) -> Account:
        """A request's greenlet begins. Runs on: request greenlet; the caller makes the account its current record."""
        account = Account(arrived)
        self.slices.begin(account)
        return account

    def prepared(self, account: Account, environ: dict[str, Any], response: Any, *, is_peer_trusted: bool) -> None:
        """The environ is known, and the answer not yet."""
        account.id = self.ids.of(environ, is_peer_trusted=is_peer_trusted)
        response.account = account
        response.has_timing = timing.may_see_timing(self.server_timing, environ, is_peer_trusted=is_peer_trusted)

    def finish(self, account: Account) -> None:
        """The request is over."""
        self.slices.finish(account)
        self.routes.add(account, timing.status_of(account.answer))

    def log_access(
        self, log: Any, account: Any, request: Any, response: Any, environ: dict[str, Any], took: timedelta
    ) -> None:
        """The request's line in the access log. Runs on: request greenlet, when the answer is written."""
        if self.has_json_log:
            log.access_log.info(timing.access_line(account, environ, response))
            return
        for name, value in timing.access_fields(account, environ).items():
            environ[timing.PREFIX + name] = value
        log.access(response, request, environ, took)
