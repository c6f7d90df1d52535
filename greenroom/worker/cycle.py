"""The request cycle: one admitted request in its greenlet, from the environ to the account, whatever its protocol."""

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any
from wsgiref.types import WSGIEnvironment

from gunicorn.config import KNOWN_SETTINGS
from gunicorn.workers.base_async import ALREADY_HANDLED

from .. import clock, forking
from ..in_flight import BARE, CLEAN_UP, CLIENT_LEFT, CURRENT, FOREVER, SHIELD, WORKER_STOPS, Record
from . import gunicorns, log_redaction
from .client_errors import ClientLeft, ClientTooSlow
from .ending import ErrorPage, clean_up_begins
from .exchange import Exchange
from .hangups import is_consequence
from .log_floods import Floods
from .request import ClientRequest
from .response import Response

if TYPE_CHECKING:
    from .serving import Serving

# A request whose answer comes later than this after its deadline was not waiting, but computing.
LATE_SECONDS = 1.0


class RequestCycle:
    """The course of every request of one worker. Runs on: request greenlets."""

    def __init__(self, serving: "Serving") -> None:
        self.serving = serving
        self.worker = serving.worker
        self.cfg = serving.cfg
        self.log = serving.log
        self.floods = Floods(self.log)
        self.errors = log_redaction.ErrorTeller(self.cfg, self.log, self.floods)
        # Calls without effect are left out: gunicorn's own access log while it is off, and its default hooks.
        self.has_access_log = gunicorns.writes_access_log(self.log)
        has_own_pre_request = self.cfg.pre_request is not _default_hook("pre_request")
        self.has_pre_request = has_own_pre_request or self.cfg.loglevel == "debug"
        self.has_post_request = self.cfg.post_request is not _default_hook("post_request")
        # Hooks may do with gunicorn's Request whatever they like: what is left out of ours would fail in them.
        self.has_own_hooks = has_own_pre_request or self.has_post_request

    def run(self, exchange: Exchange, request: ClientRequest) -> None:
        """The life of a request greenlet. Nothing may escape it: its parent is the hub."""
        is_kept = False
        insight = self.serving.insight
        record: Any = Record(exchange.arrived) if insight is None else insight.begin(exchange.arrived)
        exchange.record = record
        CURRENT.set(record)
        try:
            is_kept = self._respond(exchange, request)
            exchange.finish(is_kept=is_kept)
        except BaseException:
            self.log.exception("a request's connection could not be finished")
            exchange.break_off()
        finally:
            if record.deadline != FOREVER and record.is_spent():
                self._report_spent(record, request)
            record.finish()
            if insight is not None:
                insight.finish(record)
            record.environ = record.answer = record.on_end = None  # which lead back to the record
            exchange.record = None
            self.serving.request_finished(exchange, record, request)

    def _respond(self, exchange: Exchange, request: ClientRequest) -> bool:
        """Run the application and write its answer; returns whether the connection may serve another request."""
        started = datetime.now() if self.has_access_log else None
        response: Response | None = None
        environ: WSGIEnvironment = {}
        try:
            if self.has_pre_request:
                self.cfg.pre_request(self.worker, request)
            response, environ = exchange.prepare(request)
            environ["greenroom.is_draining"] = self.serving.is_stopping
            self.worker.request_started()
            if not self._start_budget(exchange, response, environ):
                return False
            if self.serving.is_stopping() or self.serving.gives_away(request):
                response.force_close()
            self._answer(response, environ)
            if response.is_dropped:
                return False
            if response.is_short:
                self.log.warning("%s answered less than its Content-Length", log_redaction.asked(request))
                exchange.break_off()
                return False
            return not response.is_last
        except StopIteration as exc:
            # How applications that took the socket for themselves say that there is nothing left to answer.
            if not exchange.is_used_by_application:
                self._failed(exchange, request, response, exc)
            return False
        except BaseException as exc:  # SystemExit, GreenletExit, KeyboardInterrupt, gevent.Timeout: all the same here
            self._failed(exchange, request, response, exc)
            return False
        finally:
            self._finish_accounts(request, response, environ, started)
            if response is not None:
                response.let_go()

    def _start_budget(self, exchange: Exchange, response: Response, environ: WSGIEnvironment) -> bool:
        """From when the request came, so it can be over before the application has begun: then False."""
        record: Any = exchange.record
        insight = self.serving.insight
        environ["greenroom.deadline"] = record
        record.environ = environ
        record.asked = (environ["REQUEST_METHOD"], environ["RAW_URI"])
        record.answer = response
        if insight is not None:
            insight.prepared(record, environ, response, is_peer_trusted=exchange.is_peer_trusted)
        record.on_end = exchange.request_ended
        seconds = self.serving.budgets.seconds(environ, is_peer_trusted=exchange.is_peer_trusted)
        if seconds != FOREVER:
            record.deadline = record.arrived + seconds
            if record.deadline <= clock.now():
                exchange.request_ended(record)
                return False
        return True

    def _answer(self, response: Response, environ: WSGIEnvironment) -> None:
        try:
            self._run_application(response, environ)
        finally:
            if forking.is_child():  # forked in a view, it has come to the end of it: the answer is its parent's
                forking.leave(sys.exc_info()[1])

    def _run_application(self, response: Response, environ: WSGIEnvironment) -> None:
        result = self.worker.wsgi(environ, clean_up_begins(response.start_response))
        SHIELD.set(BARE)
        if forking.is_child():
            forking.leave()
        if result is ALREADY_HANDLED:
            raise StopIteration
        try:
            if isinstance(result, environ["wsgi.file_wrapper"]):
                response.write_file(result)
            else:
                response.write_items(result)
            response.close()
        finally:
            if hasattr(result, "close"):
                SHIELD.set(CLEAN_UP)
                result.close()

    def _failed(
        self, exchange: Exchange, request: ClientRequest, response: Response | None, exc: BaseException
    ) -> None:
        """Tell the client that its request failed, as far as that is still possible.

        1. It has been answered in place of its application, or its client has left, or its application has the wire:
           nothing is said there. An error that is only the consequence of the client's leaving is nobody's.
        2. The client left, or takes nothing: nobody is there to be told.
        3. The head was sent: the status can't be taken back; a broken connection says that this was not all, unless it
           was: then its iterable's close() failed. It is nobody's error when the worker had to stop.
        4. Its body is not what HTTP allows, or the application failed: gunicorn knows the status and logs it.
        """
        record = exchange.record
        insight = self.serving.insight
        if insight is not None and not isinstance(exc, ClientLeft | ClientTooSlow):
            insight.failures.failed(exc, record)
        cut_reason = record.cut_reason if record is not None else ""
        if record is not None and record.answer is not None and record.is_spent():
            exchange.request_ended(record)  # the loop had no turn since
        is_taken = exchange.is_used_by_application
        if response is not None and (is_taken or response.is_dropped or cut_reason == CLIENT_LEFT):
            if not is_consequence(exc, has_ended=response.is_dropped):
                self._log_error(request, exc)
            if not is_taken and not response.is_dropped:
                self.log.info("%s: %s", log_redaction.asked(request), cut_reason)
                exchange.break_off()
        elif isinstance(exc, ClientLeft | ClientTooSlow):
            self.log.info("%s: %s", log_redaction.asked(request), exc)
            exchange.break_off()
        elif response is not None and response.is_whole:
            self._log_error(request, exc)
        elif response is not None and response.is_head_on_wire:
            if cut_reason == WORKER_STOPS:
                self.log.warning("%s: %s, its answer is broken off", log_redaction.asked(request), cut_reason)
            else:
                self._log_error(request, exc)
            exchange.break_off()
        else:
            if response is not None:
                response.claim()  # if the application has not: its head waited for a body
                response.status = None  # what is answered is not its; gunicorn writes the line of the access log
            self.errors.handle_error(request, ErrorPage(exchange.send_page, request), exchange.peer, exc)

    def _log_error(self, request: ClientRequest, exc: BaseException) -> None:
        if not self.floods.is_one_more(exc):
            self.log.error("Error handling request %s", log_redaction.asked(request), exc_info=exc)

    def _finish_accounts(
        self, request: ClientRequest, response: Response | None, environ: WSGIEnvironment, started: datetime | None
    ) -> None:
        if started is not None and response is not None and response.status is not None and not response.is_dropped:
            log_redaction.access(self.log, response, request, environ, datetime.now() - started)
        if self.has_post_request:
            try:
                self.cfg.post_request(self.worker, request, environ, response)
            except Exception:
                self.log.exception("Exception in post_request hook")

    def _report_spent(self, record: Record, request: ClientRequest) -> None:
        """Count the spent request, and log one that held the loop past its deadline, which nothing can cut."""
        if record.cut_reason != CLIENT_LEFT and not getattr(record.answer, "is_dropped", False):
            self.serving.spent_requests += 1
        late_seconds = clock.now() - record.deadline
        if late_seconds > LATE_SECONDS and record.cut_reason != CLIENT_LEFT:
            self.log.warning(
                "%s ended %.1f s after %s: it computed, cleaned up, or waited while it held a lock",
                log_redaction.asked(request),
                late_seconds,
                record.why(),
            )


def _default_hook(name: str) -> Any:
    return next(setting.default for setting in KNOWN_SETTINGS if setting.name == name)
