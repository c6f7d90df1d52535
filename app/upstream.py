"""Fetching a board's sources: all at once, each within its timeout, all within one budget.

Plain threads and plain `requests`. Whatever a source does (hang, reset, dribble, send garbage, redirect for ever,
answer 100 MB) becomes that source's error and spoils nothing else.

    fetch_all() -> one thread a source -> Call.run -> Lanes.answer: connect to a checked address, get the head
                                                   -> follow redirects, each checked the same way
                                                   -> read until the end or the size limit
                -> waits for outcomes; a call whose time is up is cut, and its source is an error

A source may name only public addresses unless the settings allow private ones: see lanes.py.
"""

import logging
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.exceptions import ContentDecodingError, InvalidHeader, InvalidSchema
from urllib3.exceptions import ReadTimeoutError

from .bodies import charset, decode_body
from .lanes import Answer, Cut, Lane, Lanes, NotPublic, SourceError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 65_536
ERROR_CHARACTERS = 300  # what the column holds
# A wait that ended so long before its time was ended by somebody else.
EARLY_SECONDS = 0.05


@dataclass(frozen=True)
class Target:
    """One source to fetch, as plain values: threads get no database objects."""

    name: str
    url: str
    timeout_ms: int


@dataclass(frozen=True)
class Outcome:
    """The outcome for one target: `status` and `body` when it answered, `error` when it did not.

    `is_given_up`: the request that asked was over before the target's time was; that says nothing of the target.
    """

    name: str
    elapsed_ms: int
    status: int | None = None
    body: Any = None
    error: str | None = None
    is_given_up: bool = False

    def as_dict(self) -> dict[str, Any]:
        if self.error is not None:
            return {"name": self.name, "error": self.error, "elapsed_ms": self.elapsed_ms}
        return {"name": self.name, "status": self.status, "elapsed_ms": self.elapsed_ms, "body": self.body}


class Fetcher:
    """Fetches sources for one application. One per process: its connections are kept and used by all requests.

    Thread-safe. `authorities` is a file of certificates to trust instead of the usual ones.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        response_bytes: int,
        redirects: int,
        budget_ms: int,
        authorities: str | bool = True,
    ) -> None:
        self.budget_ms = budget_ms
        self.response_bytes = response_bytes
        self.redirects = redirects
        self.lanes = Lanes(allow_private=allow_private, authorities=authorities)

    def fetch_all(self, targets: Sequence[Target], heartbeat_seconds: float | None = None) -> Generator[Outcome | None]:
        """Fetch all targets at once; yields each outcome the moment it is there, every target exactly once.

        With `heartbeat_seconds` it also yields None whenever nothing arrived for so long. Ends within the budget: what
        has not come by then is an error. Closing the iterator ends the work that is left.
        """
        if not targets:
            return
        started = time.monotonic()
        arrived: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        calls = {target.name: Call(self, target, started) for target in targets}
        executor = ThreadPoolExecutor(max_workers=len(targets), thread_name_prefix="fetch")
        try:
            for call in calls.values():
                executor.submit(call.run, arrived.put)
            while calls:
                patience = max(0.0, min(call.deadline for call in calls.values()) - time.monotonic())
                try:
                    outcome = arrived.get(timeout=min(patience, heartbeat_seconds or patience))
                except queue.Empty:
                    # The calls watch their own time too, but one that resolves a slow name, or gets a byte of its
                    # head now and then, looks up only when it is over.
                    overdue = [call for call in calls.values() if call.deadline <= time.monotonic()]
                    for call in overdue:
                        del calls[call.target.name]
                        call.cut()
                        yield call.timed_out()
                    if not overdue and heartbeat_seconds is not None:
                        yield None
                    continue
                # A call may have finished just as it was given up; its source has its outcome already.
                if calls.pop(outcome.name, None) is not None:
                    yield outcome
        finally:
            for call in calls.values():
                call.cut()
            # Not wait=True: a thread that still resolves a slow name must not hold the answer back.
            executor.shutdown(wait=False, cancel_futures=True)


class Call:
    """One fetch on its thread."""

    def __init__(self, fetcher: Fetcher, target: Target, started: float) -> None:
        self.fetcher = fetcher
        self.target = target
        self.started = started
        self.deadline = started + min(target.timeout_ms, fetcher.budget_ms) / 1000
        self.url = target.url  # where it has got to
        self._lane: Lane | None = None
        self._is_cut = False
        self._lock = threading.Lock()

    def take(self, lane: Lane | None) -> None:
        """`lane` is this call's alone from now on, and `cut` ends it; None: it is somebody else's. Raises Cut."""
        with self._lock:
            self._lane = lane
            if lane is not None and self._is_cut:
                raise Cut

    def cut(self) -> None:
        """End the call from another thread. Never touches a connection that another call has taken over."""
        with self._lock:
            self._is_cut = True
            if self._lane is not None:
                self._lane.cut()

    def remaining_seconds(self) -> float:
        """Seconds until the deadline. Raises requests.Timeout once it has passed, Cut if the call was cut."""
        if self._is_cut:
            raise Cut
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise requests.Timeout
        return remaining

    def run(self, put: Callable[[Outcome], None]) -> None:
        """Fetch and put the outcome, whatever happens; nothing if nobody waits for it any more."""
        try:
            outcome = self._fetch()
        except SourceError as exc:
            outcome = self.failed(str(exc))
        except (requests.RequestException, OSError, ValueError) as exc:
            if self._is_cut:
                return
            outcome = self.timed_out() if is_timeout(exc) else self.failed(reason(exc, self.url))
        except Exception as exc:  # a thread's exception would vanish, and the source with it
            logger.exception("source fetch failed", extra={"source": self.target.name})
            outcome = self.failed(f"internal error ({type(exc).__name__})")
        put(outcome)

    def failed(self, error: str) -> Outcome:
        # A source has a say in the text (where it redirects to); only what can be shown and stored is let through.
        printable = "".join(character if character.isprintable() else "?" for character in error[:ERROR_CHARACTERS])
        return Outcome(self.target.name, self._elapsed_ms(), error=printable)

    def timed_out(self) -> Outcome:
        if time.monotonic() < self.deadline - EARLY_SECONDS:
            # A server may bound the whole request more tightly than we do, or end it when its client leaves.
            return replace(self.failed("given up: the time for the whole request was over"), is_given_up=True)
        if self.target.timeout_ms <= self.fetcher.budget_ms:
            return self.failed(f"no answer within {self.target.timeout_ms} ms")
        return self.failed(f"no answer within the board's budget of {self.fetcher.budget_ms} ms")

    def _fetch(self) -> Outcome:
        for _ in range(self.fetcher.redirects + 1):
            with self.fetcher.lanes.answer(self.url, self) as answer:
                if answer.location is None:
                    response = answer.response
                    body = decode_body(self._read(answer), charset(response))
                    return Outcome(self.target.name, self._elapsed_ms(), status=response.status_code, body=body)
            self.url = urljoin(self.url, answer.location)
        raise SourceError(f"more than {self.fetcher.redirects} redirects")

    def _read(self, answer: Answer) -> bytes:
        limit = self.fetcher.response_bytes
        content = bytearray()
        for chunk in answer.response.iter_content(CHUNK_BYTES):
            content += chunk
            if len(content) > limit:
                raise SourceError(f"the answer is larger than {limit:,} bytes")
            self.remaining_seconds()
        answer.is_read = True
        return bytes(content)

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def is_timeout(exc: Exception) -> bool:
    """Whether a wait has ended `exc`. While it reads a body, `requests` makes a ConnectionError of that."""
    return any(isinstance(cause, requests.Timeout | ReadTimeoutError) for cause in chain(exc))


# The first kind that is among the causes says what failed.
REASONS: dict[Any, str] = {
    ConnectionRefusedError: "connection refused",
    ssl.SSLError: "the TLS certificate or handshake was not accepted",
    ContentDecodingError: "the answer is not compressed the way it says",
    ConnectionError | IncompleteRead: "the connection was cut before the answer was complete",
    HTTPException | InvalidHeader: "the answer is not HTTP",
    InvalidSchema: "only http:// and https:// addresses can be fetched",
    ValueError: "the address it names is not a valid URL",
    requests.ConnectionError: "the address can't be reached",
}


def reason(exc: Exception, url: str) -> str:
    """One line for the user: what kind of failure it was, without addresses of objects or of our network."""
    causes = tuple(chain(exc))
    for cause in causes:
        if isinstance(cause, NotPublic):
            return str(cause)
        if isinstance(cause, socket.gaierror):
            return f"the name {urlsplit(url).hostname} was not found"
    for kind, text in REASONS.items():
        if any(isinstance(cause, kind) for cause in causes):
            return text
    return f"the request failed ({type(exc).__name__})"


def chain(exc: BaseException) -> Iterator[BaseException]:
    """`exc` and what led to it: libraries keep it as the cause, as the context, as an argument or as a reason."""
    waiting: list[Any] = [exc]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]
