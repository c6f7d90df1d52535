"""Fetching a board's sources: all at once, each within its timeout, all within one budget.

Plain threads and plain `requests`. Whatever a source does (hang, reset, dribble, send garbage, redirect for ever,
answer 100 MB) becomes that source's error and spoils nothing else.

    fetch_all() -> one thread a source -> Call.run -> Session.get -> PublicAdapter: resolve, check, connect
                                                   -> follow redirects, each checked the same way
                                                   -> read until the end, the size limit or the deadline
                -> waits for outcomes; a call whose time is up is cut, and its source is an error

A source may name only public addresses unless the settings allow private ones: see transport.py.
"""

import codecs
import json
import logging
import math
import queue
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPException, IncompleteRead
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import requests
from requests.exceptions import InvalidHeader, InvalidSchema
from urllib3.exceptions import DecodeError
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from .addresses import resolve
from .transport import Cut, PublicAdapter, SourceError, Wire

logger = logging.getLogger(__name__)

CHUNK_BYTES = 65_536
USER_AGENT = "boards/1.0"
# RFC 8586: tells a server of ours, at the end of whatever chain, that a board is being fetched; see fetch_limits.py.
LOOP_HEADER = "CDN-Loop"
LOOP_TOKEN = "boards"
HEARTBEAT = object()
# What a board shows may be nested this deep. More than anybody sends; far less than json.dumps() can write back.
JSON_DEPTH = 100
# Text is read in these encodings only: punycode, for one, takes minutes for a megabyte.
TEXT_ENCODINGS = ("utf", "ascii", "iso8859", "cp125", "koi8", "euc", "shift_jis", "gb", "big5", "mac-roman")
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
    """What came of one target: `status` and `body` when it answered, `error` when it did not.

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
    """Fetches sources for one application. One per process: its connections are pooled and reused by all requests.

    Thread-safe: the session is only read after construction, and it keeps no cookies. `resolve` and `tls` are handed
    in by tests.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        response_bytes: int,
        redirects: int,
        budget_ms: int,
        pool_size: int = 50,
        resolve: Callable[[str, int], list[str]] = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.budget_ms = budget_ms
        self.response_bytes = response_bytes
        self.redirects = redirects
        self.session = PlainSession()
        adapter = PublicAdapter(
            allow_private=allow_private,
            pool_size=pool_size,
            resolve=resolve,
            tls=tls,
        )
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def fetch_all(self, targets: Sequence[Target]) -> Generator[Outcome]:
        """Fetch all targets at once; yields each outcome the moment it is there, every target exactly once.

        Ends within the budget: what has not come by then is an error. Closing the iterator ends the work that is left.
        """
        with closing(self.fetch_with_heartbeat(targets, None)) as items:
            yield from (item for item in items if isinstance(item, Outcome))

    def fetch_with_heartbeat(
        self, targets: Sequence[Target], heartbeat_seconds: float | None
    ) -> Generator[Outcome | object]:
        """As `fetch_all`, and yields HEARTBEAT whenever nothing arrived for `heartbeat_seconds`."""
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
                patience = max(0.0, min(call.wire.deadline for call in calls.values()) - time.monotonic())
                try:
                    outcome = arrived.get(timeout=min(patience, heartbeat_seconds or patience))
                except queue.Empty:
                    # The calls watch their own time too, but one that resolves a slow name, or gets a byte of its
                    # head now and then, looks up only when it is over.
                    overdue = [call for call in calls.values() if call.wire.deadline <= time.monotonic()]
                    for call in overdue:
                        del calls[call.target.name]
                        call.wire.cut()
                        yield call.timed_out()
                    if not overdue:
                        yield HEARTBEAT
                    continue
                # A call may have finished just as it was given up; its source has its outcome already.
                if calls.pop(outcome.name, None) is not None:
                    yield outcome
        finally:
            for call in calls.values():
                call.wire.cut()
            # Not wait=True: a thread that still resolves a slow name must not hold the answer back.
            executor.shutdown(wait=False, cancel_futures=True)


class PlainSession(requests.Session):
    """A session that knows nothing: no proxies or passwords of the machine, no cookies, no redirects of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"})
        self.headers[LOOP_HEADER] = LOOP_TOKEN

    def resolve_redirects(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """None: requests would read the whole body of each redirect, however long. Call follows them itself."""
        return iter(())


class Call:
    """One fetch on its thread."""

    def __init__(self, fetcher: Fetcher, target: Target, started: float) -> None:
        self.fetcher = fetcher
        self.target = target
        self.started = started
        self.wire = Wire(started + min(target.timeout_ms, fetcher.budget_ms) / 1000)

    def run(self, put: Callable[[Outcome], None]) -> None:
        """Fetch and put the outcome, whatever happens; nothing if nobody waits for it any more."""
        try:
            with self.wire:
                outcome = self._fetch()
        except Cut:
            return
        except SourceError as exc:
            outcome = self.failed(str(exc))
        except (requests.Timeout, Urllib3Timeout):
            outcome = self.timed_out()
        except (requests.RequestException, Urllib3Error, OSError, ValueError) as exc:
            outcome = self.failed(reason(exc))
        except Exception as exc:  # a thread's exception would vanish, and the source with it
            logger.exception("source fetch failed", extra={"source": self.target.name})
            outcome = self.failed(f"internal error ({type(exc).__name__})")
        put(outcome)

    def failed(self, error: str) -> Outcome:
        # A source has a say in the text (where it redirects to); only what can be shown and stored is let through.
        printable = "".join(character if character.isprintable() else "?" for character in error[:ERROR_CHARACTERS])
        return Outcome(self.target.name, self._elapsed_ms(), error=printable)

    def timed_out(self) -> Outcome:
        if time.monotonic() < self.wire.deadline - EARLY_SECONDS:
            # A server may bound the whole request more tightly than we do, or end it when its client leaves.
            return replace(self.failed("given up: the time for the whole request was over"), is_given_up=True)
        if self.target.timeout_ms <= self.fetcher.budget_ms:
            return self.failed(f"no answer within {self.target.timeout_ms} ms")
        return self.failed(f"no answer within the board's budget of {self.fetcher.budget_ms} ms")

    def _fetch(self) -> Outcome:
        url = self.target.url
        for _ in range(self.fetcher.redirects + 1):
            with self.fetcher.session.get(url, stream=True, timeout=self.wire.remaining_seconds()) as response:
                location = self.fetcher.session.get_redirect_target(response)
                if location is None:
                    body = decode_body(self._read(response), charset(response))
                    return Outcome(self.target.name, self._elapsed_ms(), status=response.status_code, body=body)
                url = urljoin(response.url, location)
        raise SourceError(f"more than {self.fetcher.redirects} redirects")

    def _read(self, response: requests.Response) -> bytes:
        limit = self.fetcher.response_bytes
        content = bytearray()
        # read1 and not iter_content: it returns what one read of the socket gave, so a source that dribbles a byte
        # at a time can't stretch one chunk past the deadline.
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            content += chunk
            if len(content) > limit:
                raise SourceError(f"the answer is larger than {limit:,} bytes")
            self.wire.remaining_seconds()
        return bytes(content)

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


def charset(response: requests.Response) -> str:
    """The encoding the source names, else UTF-8; requests' own guess for text, ISO-8859-1, is hardly ever right."""
    named = "charset=" in response.headers.get("Content-Type", "").lower()
    return (named and response.encoding) or "utf-8"


def decode_body(content: bytes, encoding: str) -> Any:
    """The JSON value in `content` if it is strict JSON, else its text. Raises SourceError when it is neither."""
    codec = readable_codec(encoding)
    if codec is None:
        raise SourceError(f"the answer is in the encoding {encoding[:40]}, which is not read here")
    try:
        text = content.decode(codec)
    except ValueError as exc:
        raise SourceError(f"the answer is not valid {encoding[:40]} text") from exc
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):  # not JSON, or JSON nobody could read: NaN, too deep, too many digits
        return text
    return text if is_deeper(value, JSON_DEPTH) else value


def readable_codec(encoding: str) -> str | None:
    """Python's name for `encoding`, None if it is none of ours; UTF-8 may begin with a byte order mark."""
    try:
        known = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return None
    if known == "utf-8":
        return "utf-8-sig"
    return known if known.startswith(TEXT_ENCODINGS) else None


def is_deeper(value: Any, limit: int) -> bool:
    """True if lists and objects in `value` are nested more than `limit` deep. Goes level by level: no recursion."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, list | dict)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("the number is too large")  # it would be written back as Infinity, which is not JSON
    return number


def reason(exc: Exception) -> str:
    """One line for the user: what kind of failure it was, without addresses of objects or of our network.

    1. the connection was refused or not made
    2. TLS: certificate or handshake
    3. the body can't be unpacked
    4. cut: reset, or ended before the announced length
    5. not HTTP
    6. a redirect to where nobody can go
    """
    causes = tuple(chain(exc))

    def has(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    if has(ConnectionRefusedError):
        return "connection refused"
    if has(ssl.SSLError):
        return "the TLS certificate or handshake was not accepted"
    if has(DecodeError):
        return "the answer is not compressed the way it says"
    if has(ConnectionError, IncompleteRead):
        return "the connection was cut before the answer was complete"
    if has(HTTPException, InvalidHeader):
        return "the answer is not HTTP"
    if has(InvalidSchema):
        return "only http:// and https:// addresses can be fetched"
    if has(ValueError):
        return "the address it names is not a valid URL"
    if has(OSError) and isinstance(exc, requests.ConnectionError):
        return "the address can't be reached"
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
