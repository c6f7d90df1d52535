"""The end of a request whose application has not answered: the edge answers, so the client depends on nobody's code.

    what happened                                  the client gets         status in logs and metrics
    the budget is spent                            504                     504
    the worker has to stop                         503                     503
    the budget is spent, the body has not come     408                     408
    the body came too slowly                       408                     408
    the body came only in part, or is malformed    400                     400
    the client has left                            nothing                 499

Either the application answers, with the first byte of its head, or the edge; Response.claim decides it once. An answer
of the application after the edge's is dropped; its greenlet runs on, and is in flight until it ends.
"""

from collections.abc import Callable
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import gevent
from gunicorn.util import write_error

from .. import clock, redaction
from ..in_flight import CLEAN_UP, CLIENT_LEFT, CURRENT, SHIELD, WORKER_STOPS, Record
from . import log_redaction
from .client_errors import BodyCutShort, BodyMalformed, BodyTooSlow, ClientLeft, ClientTooSlow
from .exchange import Exchange
from .head import HEAD_END
from .request import ClientRequest

if TYPE_CHECKING:
    from .serving import Serving

CLIENT_CLOSED_REQUEST = "499 Client Closed Request"  # nginx's number
LATE = "The answer did not come in time."
LATE_BODY = "The rest of the body did not come in time."


class Ending:
    """Answers for one worker's requests in place of their applications."""

    def __init__(self, serving: "Serving") -> None:
        self.serving = serving

    def end(self, exchange: Exchange, record: Record) -> None:
        """The request's budget is spent, or it was cut. Runs on: hub, or the request's greenlet before it answers."""
        if record.cut_reason == CLIENT_LEFT:
            self._leave(exchange, record, record.cut_reason)
            return
        status, detail, why = "504 Gateway Timeout", LATE, f"{record.why()}{waited_for(record)}"
        if record.cut_reason == WORKER_STOPS:
            status = "503 Service Unavailable"
        elif exchange.waits_for_body:
            status, detail, why = "408 Request Timeout", LATE_BODY, record.why()
        if self._answer(exchange, record, status, detail, why):
            self.serving.spent_requests += 1

    def body_failed(self, exchange: Exchange, exc: ClientLeft | ClientTooSlow) -> None:
        """The rest of the body does not come. Runs on: request greenlet."""
        record = exchange.record
        if record is None or record.answer is None:
            return
        if isinstance(exc, BodyTooSlow):
            self._answer(exchange, record, "408 Request Timeout", str(exc), str(exc))
        elif isinstance(exc, BodyCutShort | BodyMalformed):
            self._answer(exchange, record, "400 Bad Request", str(exc), str(exc))
        else:
            self._leave(exchange, record, str(exc))

    def _leave(self, exchange: Exchange, record: Record, why: str) -> None:
        """The client has left: nobody is to be answered, unless the application is at it."""
        if exchange.drop(CLIENT_CLOSED_REQUEST):
            self._tell(exchange, record, self.serving.log.info, why)
            exchange.leave()

    def _answer(self, exchange: Exchange, record: Record, status: str, detail: str, why: str) -> bool:
        if not exchange.drop(status):
            return False
        is_clients_fault = status.startswith("4")
        self._tell(exchange, record, self.serving.log.info if is_clients_fault else self.serving.log.warning, why)
        code, _, reason = status.partition(" ")
        exchange.answer(int(code), reason, detail)
        return True

    def _tell(self, exchange: Exchange, record: Record, log: Callable[..., None], why: str) -> None:
        """One line, and the access log's. In a greenlet: handlers may wait, which the hub must not."""
        request, response, environ = exchange.request, record.answer, record.environ or {}
        took = timedelta(seconds=clock.now() - record.arrived)
        method, target = record.asked

        def tell() -> None:
            log("%s %s: %s", method, redaction.target(target), why)
            if self.serving.has_access_log and request is not None:
                CURRENT.set(record)
                log_redaction.access(self.serving.log, response, request, environ, took)

        gevent.spawn(tell)


def waited_for(record: Record) -> str:
    """Return the request's latest wait, as far as one was reported."""
    wait = max(record.waits, key=attrgetter("since"), default=None)
    return "" if wait is None else f"; it waits for: {wait.kind} {redaction.detail(wait.kind, wait.detail)}".rstrip()


class ErrorPage:
    """The socket that gunicorn writes its error pages to: as it believes, without waiting, and all at once."""

    def __init__(self, send: Callable[[bytes], object], request: ClientRequest | None = None) -> None:
        self.send = send
        self.request = request

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.send(fitting(data, self.request))


def fitting(page: bytes, request: ClientRequest | None) -> bytes:
    """Return `page` as it fits `request`: HEAD has no body (RFC 9110 9.3.2)."""
    has_body = request is None or request.method != "HEAD"
    return page if has_body else page[: page.index(HEAD_END) + len(HEAD_END)]


def error_answer(status: int, reason: str, detail: str) -> bytes:
    """gunicorn's error page, with `Connection: close`."""
    pages: list[bytes] = []
    write_error(ErrorPage(pages.append), status, reason, detail)
    return pages[0]


def clean_up_begins(start_response: Callable[..., Any]) -> Callable[..., Any]:
    """`start_response` for an application that only cleans up between calling it and returning.

    Those are teardowns: a wait that ended in the middle of one would leave a session or a connection to somebody else.
    From that call on waits end with the grace; the server goes back to the budget when the application has returned.
    """

    def begin(*args: Any, **kwargs: Any) -> Any:
        if SHIELD.get() < CLEAN_UP:
            SHIELD.set(CLEAN_UP)
        return start_response(*args, **kwargs)

    return begin
