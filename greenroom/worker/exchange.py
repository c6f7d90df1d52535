"""One request and its answer, as admission, the request cycle and the end of a request know it, whatever the protocol.

A connection of HTTP/1.1 is the exchange of its running request; with HTTP/2 each stream is one.
"""

from typing import TYPE_CHECKING, Protocol
from wsgiref.types import WSGIEnvironment

from ..in_flight import Record
from .request import ClientRequest
from .transport import Peer

if TYPE_CHECKING:
    from .response import Response


class Exchange(Protocol):
    arrived: float  # when the head was complete
    record: Record | None  # while the request runs
    # The client has taken its request back. It is not begun any more.
    is_reset: bool

    @property
    def peer(self) -> Peer: ...

    @property
    def is_peer_trusted(self) -> bool:
        """Whether what it says for others counts: see gunicorn's forwarded_allow_ips."""

    @property
    def request(self) -> ClientRequest | None:
        """The request, while it runs."""

    @property
    def waits_for_body(self) -> bool: ...

    @property
    def is_used_by_application(self) -> bool:
        """Whether the application has taken the client's socket and used it: see takeover."""

    def start(self) -> None:
        """The request is admitted."""

    def prepare(self, request: ClientRequest) -> tuple["Response", WSGIEnvironment]:
        """The response (see Response) and the environ. Raises what gunicorn raises for a request it refuses."""

    def send_page(self, page: bytes) -> bool:
        """Send an error page of gunicorn's. False if it could not be sent whole at once. Never waits."""

    def shed(self, request: ClientRequest, *, is_kept: bool) -> None:
        """Answer 503; `is_kept`: the connection may serve other requests. Runs on: hub."""

    def finish(self, *, is_kept: bool) -> None:
        """The request is over, whole. Runs on: request greenlet, at its very end, or hub."""

    def break_off(self) -> None:
        """The request is over, and its answer is not whole: the client has to notice."""

    def leave_line(self) -> None:
        """The request is not begun any more, and nobody waits for an answer."""

    # --- what Ending asks of it

    def drop(self, status: str) -> bool:
        """Take the answer from the application, with `status` for logs and metrics; False if it has begun itself."""

    def answer(self, code: int, reason: str, detail: str) -> None:
        """Write an error page in place of the application. Runs on: hub, request greenlet; never waits."""

    def leave(self) -> None:
        """End it without a word."""

    def request_ended(self, record: Record) -> None:
        """The request's time is over, or it was cut: see Record.on_end."""
