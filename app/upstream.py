"""Fetching a board's sources: all at once, each within its timeout, all within one budget.

Plain threads and plain `requests`. Whatever a source does (hang, reset, dribble, send garbage, redirect for ever,
answer 100 MB) becomes that source's error and spoils nothing else.

    fetch_all() -> one thread a source -> Session.get -> PublicAdapter: resolve, check, connect to the checked address
                                                      -> read chunks until the end, the size limit or the deadline

A source may name only public addresses unless the settings allow private ones. The address that was checked is the
address connected to (the URL's host is replaced by it), so a name that resolves differently a moment later gains
nothing; redirects go through the same adapter and are checked the same way.
"""

import ipaddress
import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import ProtocolError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 65_536
USER_AGENT = "boards/1.0 (+https://example.org/boards)"
HEARTBEAT = object()


@dataclass(frozen=True)
class Target:
    """One source to fetch, as plain values: threads get no database objects."""

    name: str
    url: str
    timeout_ms: int


@dataclass(frozen=True)
class Outcome:
    """What came of one target: `status` and `body` when it answered, `error` when it did not."""

    name: str
    elapsed_ms: int
    status: int | None = None
    body: Any = None
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        if self.error is not None:
            return {"name": self.name, "error": self.error, "elapsed_ms": self.elapsed_ms}
        return {"name": self.name, "status": self.status, "elapsed_ms": self.elapsed_ms, "body": self.body}


class SourceError(Exception):
    """A source can't be used; the message is for the user and names what to change."""


class Fetcher:
    """Fetches sources for one application. One per process: its connections are pooled and reused by all requests.

    Thread-safe: the session is only read after construction, and it keeps no cookies.
    """

    def __init__(
        self, *, allow_private: bool, response_bytes: int, redirects: int, pool_size: int = 50, budget_ms: int
    ) -> None:
        self.budget_ms = budget_ms
        self.response_bytes = response_bytes
        self.session = requests.Session()
        self.session.headers["User-Agent"] = USER_AGENT
        # Proxies and .netrc of the machine are not the user's to use; reading them costs 0.2 ms a call besides.
        self.session.trust_env = False
        self.session.max_redirects = redirects
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = PublicAdapter(allow_private=allow_private, pool_size=pool_size)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def fetch_all(self, targets: Sequence[Target]) -> Iterator[Outcome]:
        """Fetch all targets at once; yields each outcome the moment it is there, every target exactly once.

        Ends within the budget: what has not come by then is an error. Closing the iterator ends the work that is left.
        """
        return (item for item in self.fetch_with_heartbeat(targets, None) if isinstance(item, Outcome))

    def fetch_with_heartbeat(
        self, targets: Sequence[Target], heartbeat_seconds: float | None
    ) -> Iterator[Outcome | object]:
        """As `fetch_all`, and yields HEARTBEAT whenever nothing arrived for `heartbeat_seconds`."""
        if not targets:
            return
        started = time.monotonic()
        deadline = started + self.budget_ms / 1000
        arrived: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        calls = {target.name: Call(self, target, started, deadline) for target in targets}
        executor = ThreadPoolExecutor(max_workers=len(targets), thread_name_prefix="fetch")
        try:
            for call in calls.values():
                executor.submit(call.run, arrived.put)
            while calls:
                remaining = deadline - time.monotonic()
                try:
                    outcome = arrived.get(timeout=max(0.0, min(remaining, heartbeat_seconds or remaining)))
                except queue.Empty:
                    if time.monotonic() < deadline:
                        yield HEARTBEAT
                        continue
                    break
                calls.pop(outcome.name, None)
                yield outcome
            for call in calls.values():
                yield call.failed(f"no answer within the board's budget of {self.budget_ms} ms")
        finally:
            for call in calls.values():
                call.abort()
            # Not wait=True: a thread that still resolves a slow name must not hold the answer back.
            executor.shutdown(wait=False, cancel_futures=True)


class Call:
    """One fetch on its thread, which another thread may abort."""

    # The call that runs on this thread: how a connection that urllib3 opens finds who it works for.
    current = threading.local()
    # Guards who owns which connection. One lock for all: it is held for two assignments and a shutdown().
    ownership = threading.Lock()

    def __init__(self, fetcher: Fetcher, target: Target, started: float, deadline: float) -> None:
        self.fetcher = fetcher
        self.target = target
        self.started = started
        self.deadline = min(deadline, started + target.timeout_ms / 1000)
        self._connection: Watched | None = None
        self._is_aborted = False

    def run(self, put: Callable[[Outcome], None]) -> None:
        """Fetch and put the outcome, whatever happens."""
        Call.current.call = self
        try:
            outcome = self._fetch()
        except SourceError as exc:
            outcome = self.failed(str(exc))
        except requests.Timeout:
            outcome = self.failed(f"no answer within {self.target.timeout_ms} ms")
        except requests.TooManyRedirects:
            outcome = self.failed(f"more than {self.fetcher.session.max_redirects} redirects")
        except (requests.RequestException, Urllib3Error, OSError, ValueError) as exc:
            outcome = self.failed(reason(exc))
        except Exception as exc:  # a thread's exception would vanish, and the source with it
            logger.exception("source fetch failed", extra={"source": self.target.name})
            outcome = self.failed(f"internal error ({type(exc).__name__})")
        finally:
            self.disown()
            Call.current.call = None
        put(outcome)

    def failed(self, error: str) -> Outcome:
        return Outcome(self.target.name, self._elapsed_ms(), error=error[:300])

    def abort(self) -> None:
        """End the call from another thread: its socket is shut down, so a blocked read returns at once."""
        self._is_aborted = True
        with Call.ownership:
            connection = self._connection
            # A pooled connection that another call has taken over in the meantime is that call's.
            if connection is not None and connection.owner is self and connection.sock is not None:
                shut_down(connection.sock)

    def own(self, connection: "Watched") -> None:
        """From now on this call is the one that waits on `connection`."""
        with Call.ownership:
            connection.owner = self
            self._connection = connection

    def disown(self) -> None:
        with Call.ownership:
            self._connection = None

    def remaining_seconds(self) -> float:
        """Seconds until the deadline. Raises requests.Timeout once it has passed or the call was aborted."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0 or self._is_aborted:
            raise requests.Timeout
        return remaining

    def _fetch(self) -> Outcome:
        with self.fetcher.session.get(self.target.url, timeout=self.remaining_seconds(), stream=True) as response:
            content = self._read(response)
            body = decode_body(content, response.encoding if has_charset(response) else "utf-8")
            return Outcome(self.target.name, self._elapsed_ms(), status=response.status_code, body=body)

    def _read(self, response: requests.Response) -> bytes:
        limit = self.fetcher.response_bytes
        content = bytearray()
        # read1 and not iter_content: it returns what one read of the socket gave, so a source that dribbles a byte at a
        # time can't stretch one chunk past the deadline.
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=True):
            content += chunk
            if len(content) > limit:
                raise SourceError(f"the answer is larger than {limit:,} bytes")
            self.remaining_seconds()
        return bytes(content)

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)


class PublicAdapter(HTTPAdapter):
    """Sends each request to an address that was looked up and checked first."""

    def __init__(self, *, allow_private: bool, pool_size: int) -> None:
        self.allow_private = allow_private
        super().__init__(pool_connections=pool_size, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": WatchedHTTPPool, "https": WatchedHTTPSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = urlsplit(str(request.url))
        if url.scheme not in ("http", "https") or not url.hostname:
            raise SourceError(f"only http:// and https:// can be fetched, not {url.scheme}://")
        addresses = resolve(url.hostname, url.port or (443 if url.scheme == "https" else 80))
        if not self.allow_private and not all(is_public(address) for address in addresses):
            raise SourceError(f"{url.hostname} is not a public address")
        last_error: requests.ConnectionError | None = None
        for address in addresses:
            try:
                return self._send_to(address, request, *args, **kwargs)
            except requests.Timeout:
                raise
            except requests.ConnectionError as exc:
                if was_cut(exc):
                    raise
                last_error = exc  # not reached at all; the next address may be up: 127.0.0.1 after ::1, say
        assert last_error is not None
        raise last_error

    def _send_to(self, address: str, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = urlsplit(str(request.url))
        host = f"[{address}]" if ":" in address else address
        pinned = request.copy()
        pinned.url = urlunsplit(url._replace(netloc=f"{host}:{url.port}" if url.port else host))
        pinned.headers["Host"] = url.netloc.rpartition("@")[2]
        # Read by build_connection_pool_key_attributes() below; the certificate must be the name's, not the address's.
        pinned.server_hostname = url.hostname  # type: ignore[attr-defined]
        try:
            response = self._send_in_time(pinned, *args, **kwargs)
        except requests.ConnectionError as exc:
            if not was_cut(exc):
                raise
            # The other side may have closed a kept connection as we took it; a GET may be sent again, once.
            response = self._send_in_time(pinned, *args, **kwargs)
        response.url = str(request.url)  # a relative redirect starts from the name, not from the address
        response.request = request
        return response

    def _send_in_time(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        call: Call | None = getattr(Call.current, "call", None)
        if call is not None:
            kwargs["timeout"] = call.remaining_seconds()
        return super().send(request, *args, **kwargs)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host_params, pool_kwargs = super().build_connection_pool_key_attributes(request, verify, cert)
        if host_params["scheme"] == "https":
            pool_kwargs |= {"server_hostname": request.server_hostname, "assert_hostname": request.server_hostname}
        return host_params, pool_kwargs


class Watched:
    """A urllib3 connection that knows the call waiting on it, so that the call can be ended from another thread."""

    owner: Call | None = None
    sock: socket.socket | None

    def request(self, *args: Any, **kwargs: Any) -> None:
        call: Call | None = getattr(Call.current, "call", None)
        if call is not None:
            call.own(self)
        super().request(*args, **kwargs)  # type: ignore[misc]
        if call is not None:
            call.remaining_seconds()  # raises if it was aborted while the connection was being made


class WatchedHTTPConnection(Watched, HTTPConnection):
    pass


class WatchedHTTPSConnection(Watched, HTTPSConnection):
    pass


class WatchedHTTPPool(HTTPConnectionPool):
    ConnectionCls = WatchedHTTPConnection


class WatchedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = WatchedHTTPSConnection


def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host`, in the order to try them. Raises SourceError when there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise SourceError(f"the name {host} was not found") from exc
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """True when everybody can reach `address`: not loopback, private, link-local, shared, multicast or reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # An IPv4 address in an IPv6 coat is judged by what is inside.
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if inner:
            return is_public(str(inner))
        if parsed in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed.is_global and not parsed.is_multicast


NAT64 = ipaddress.ip_network("64:ff9b::/96")


def decode_body(content: bytes, encoding: str | None) -> Any:
    """The JSON value in `content` if it is strict JSON, else its text. Raises SourceError when it is neither."""
    try:
        text = content.decode(encoding or "utf-8")
    except (UnicodeDecodeError, LookupError) as exc:
        raise SourceError(f"the answer is not valid {encoding or 'utf-8'} text") from exc
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # not JSON, or JSON nobody could read: NaN, too deep, too many digits
        return text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def was_cut(exc: requests.ConnectionError) -> bool:
    """True when the connection was made and then broken by the other side."""
    return bool(exc.args) and isinstance(exc.args[0], ProtocolError)


def has_charset(response: requests.Response) -> bool:
    return "charset=" in response.headers.get("Content-Type", "").lower()


def shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as exc:
        logger.debug("socket was closed already", extra={"reason": str(exc)})


def reason(exc: Exception) -> str:
    """One line for the user: what kind of failure it was, without addresses of objects or of our network."""
    text = str(exc)
    if "refused" in text:
        return "connection refused"
    if "CERTIFICATE" in text or "SSL" in type(exc).__name__:
        return "the TLS certificate or handshake was not accepted"
    if "reset" in text or "aborted" in text or "IncompleteRead" in text or "EOF" in text:
        return "the connection was cut before the answer was complete"
    if isinstance(exc, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return "the address is not a valid URL"
    return f"the request failed ({type(exc).__name__})"
