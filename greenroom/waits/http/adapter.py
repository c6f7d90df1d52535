"""`HTTPAdapter.send`, with which `requests` sends everything: ours where the request is plain, the original else.

Replaced in the class itself and not mounted, so that it serves sessions that exist already and those of subclasses; and
so that whoever replaces it later (the mocks of tests do) still gets what he expects. Ours only is what nobody has put a
hand to: an HTTPAdapter and not a subclass, no pool of a fixed size, no proxy. A mounted Retry is obeyed (retrying.py).
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any

from gevent.hub import get_hub
from greenlet import getcurrent
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.exceptions import (
    ConnectionError,
    ConnectTimeout,
    InvalidHeader,
    ReadTimeout,
    RequestException,
    RetryError,
    SSLError,
)
from requests.models import PreparedRequest, Response
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, select_proxy
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    ResponseError,
)
from urllib3.exceptions import InvalidHeader as Urllib3InvalidHeader
from urllib3.exceptions import SSLError as Urllib3SSLError
from urllib3.poolmanager import PoolManager, pool_classes_by_scheme
from urllib3.util import Retry, Timeout

from ... import deadline, observing
from ...in_flight import CURRENT, FOREVER
from ..threads import is_loop_thread
from . import logins, retrying
from .answer import Answer, StreamedAnswer
from .head import Outgoing, Target, outgoing, target_of
from .hooked import Hooks
from .pool import Pools
from .tls import FileMissing
from .tracing import trace_lines
from .transport import UpstreamCall

# The attributes of an HTTPAdapter without its pool manager and retries, which are made when somebody asks for them.
PLAIN_ATTRIBUTES = 5
PLAIN_POOL_SETTINGS = {"maxsize", "block"}
NUMBERS = (int, float)
NO_TIME = timedelta(0)
BUDGET_HEADER = "X-Request-Timeout-Ms"
BUDGET_FIELD = BUDGET_HEADER.lower()


class Transport:
    """Our side of `requests` in this process. `tells_budget`: upstreams get what is left of a request's budget."""

    def __init__(
        self, original_send: Any, *, connections: int, idle_seconds: float, age_seconds: float, tells_budget: bool
    ) -> None:
        self.original_send = original_send
        self.connections = connections
        self.idle_seconds = idle_seconds
        self.age_seconds = age_seconds
        self.tells_budget = tells_budget
        self.hooks = Hooks()
        self.pools: Pools | None = None

    def send(
        self,
        adapter: HTTPAdapter,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Response:
        """Do as HTTPAdapter.send does, with its errors.

        Runs on: any greenlet or thread; switches.
        """
        if observing.on_call is not None:
            return observing.on_call(
                request, lambda: self._send(adapter, request, stream, timeout, verify, cert, proxies)
            )
        return self._send(adapter, request, stream, timeout, verify, cert, proxies)

    def _send(
        self,
        adapter: HTTPAdapter,
        request: PreparedRequest,
        stream: bool,
        timeout: Any,
        verify: Any,
        cert: Any,
        proxies: Any,
    ) -> Response:
        def make() -> UpstreamCall | None:
            return self._call(adapter, request, timeout, verify, cert, proxies)

        call = make()
        if call is None:
            return self._send_as_ever(
                adapter, request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
        retries: Retry | None = adapter.__dict__.get("max_retries")
        if retries is None or retrying.is_none(retries):
            return response_of(adapter, request, answer_to(call, request))
        return response_of(adapter, request, answer_to(call, request, retries, make))

    def _send_as_ever(self, adapter: HTTPAdapter, request: PreparedRequest, **settings: Any) -> Response:
        """Through the original adapter, with the fields that we add: in a copy that nobody gets to see."""
        sent = self._with_added(request)
        try:
            response: Response = self.original_send(adapter, sent, **settings)
        except RequestException as exc:
            if exc.request is sent:
                exc.request = request
            raise
        if getattr(response, "request", None) is sent:
            response.request = request
        return response

    def _with_added(self, request: PreparedRequest) -> PreparedRequest:
        if CURRENT.get() is None or not isinstance(request, PreparedRequest):
            return request
        headers = CaseInsensitiveDict(request.headers or {})
        added = self.added(headers)
        if not added:
            return request
        for line in added.splitlines():
            name, _, value = line.partition(": ")
            headers[name] = value
        sent = copy.copy(request)  # not request.copy(): adapters find attributes of their own in it
        sent.headers = headers
        return sent

    def _call(
        self, adapter: HTTPAdapter, request: PreparedRequest, timeout: Any, verify: Any, cert: Any, proxies: Any
    ) -> UpstreamCall | None:
        """Return the call that sends this request over our pool; None where `requests` sends it itself."""
        if not is_plain(adapter, may_retry=True) or type(request.headers) is not CaseInsensitiveDict:
            return None
        target = target_of(request.url)
        if target is None or cert or self.hooks.are_there() or (proxies and select_proxy(request.url, proxies)):  # type: ignore[arg-type]
            return None
        pools = self.pools_here()
        if pools is None:
            return None
        timeouts = seconds_of(timeout)
        if timeouts is None:
            return None
        added = self.added(request.headers)
        prepared = outgoing(request.method, target, request.headers, request.body, added)
        if prepared is None or not (prepared.is_repeatable or is_plain(adapter)):
            return None  # urllib3 winds files back before it tries again
        # An `auth` that answers challenges does it in a hook, and often on the connection on which it was challenged.
        is_own = bool(request.hooks and request.hooks.get("response")) or logins.in_request(request.headers._store)  # type: ignore[attr-defined]
        return self.call_to(pools, target, prepared, request.method, adapter, timeouts, verify, is_own=is_own)

    def call_to(
        self,
        pools: Pools,
        target: Target,
        prepared: Outgoing,
        method: Any,
        adapter: HTTPAdapter,
        timeouts: tuple[float | None, float | None],
        verify: Any,
        *,
        is_own: bool,
    ) -> UpstreamCall | None:
        """`is_own`: over connections of this adapter's own (logins.py)."""
        if target.scheme == "http":
            verify = None
        elif not (verify is None or isinstance(verify, (bool, str))):
            return None
        origin = pools.origin((target.scheme, target.host, target.port, verify), adapter, is_own=is_own)
        return UpstreamCall(origin, method, target.path, prepared, *timeouts, adapter)

    def pools_here(self) -> Pools | None:
        """The pools are the main thread's; a real thread uses the original adapter."""
        if not is_loop_thread():
            return None
        hub: Any = get_hub()
        if getcurrent() is hub:
            return None
        pools = self.pools
        if pools is None or pools.hub is not hub:
            if not hub.main_hub:
                return None
            pools = self.pools = Pools(
                limit=self.connections, idle_seconds=self.idle_seconds, age_seconds=self.age_seconds
            )
        return pools

    def added(self, headers: Any) -> str:
        """The fields that we add to these: what is left of the budget, and the trace."""
        record = CURRENT.get()
        if record is None:
            return ""
        lines = trace_lines(record, headers)
        if self.tells_budget and record.deadline != FOREVER and BUDGET_FIELD not in headers._store:
            left = deadline.remaining_seconds()
            if left != FOREVER:
                return f"{BUDGET_HEADER}: {left * 1000:.0f}\r\n{lines}"
        return lines

    def close(self, adapter: HTTPAdapter) -> None:
        """A session is closed, and with it the connections that are its own."""
        if self.pools is not None:
            self.pools.end_owned(adapter)

    def forget(self) -> None:
        """In a forked child: its parent's connections are not its own. They are closed here, and live on there."""
        pools, self.pools = self.pools, None
        if pools is not None:
            pools.abandon()


def answer_to(
    call: UpstreamCall,
    request: PreparedRequest,
    retries: Retry | None = None,
    renew: Callable[[], UpstreamCall | None] | None = None,
) -> Answer | StreamedAnswer:
    """The answer, or the errors that HTTPAdapter.send raises. With `retries` it is tried again as they say."""
    try:
        return call.run() if retries is None or renew is None else retrying.run(call, retries, renew)
    except FileMissing:
        raise
    except (ProtocolError, OSError) as exc:
        raise ConnectionError(exc, request=request) from exc
    except MaxRetryError as exc:
        raise _given_up(exc, request) from exc
    except Urllib3SSLError as exc:
        raise SSLError(exc, request=request) from exc
    except ReadTimeoutError as exc:
        raise ReadTimeout(exc, request=request) from exc
    except Urllib3InvalidHeader as exc:
        raise InvalidHeader(exc, request=request) from exc


def is_plain(adapter: HTTPAdapter, *, may_retry: bool = False) -> bool:
    """Whether nobody has given this adapter a behaviour of its own; `may_retry`: but for a Retry."""
    if type(adapter) is not HTTPAdapter:
        return False
    attributes = adapter.__dict__
    count = len(attributes)
    if attributes["_pool_block"]:
        return False
    if "max_retries" in attributes:
        retries = attributes["max_retries"]
        if type(retries) is not Retry:
            return False  # urllib3 takes numbers, False and None, too
        if not (may_retry or retrying.is_none(retries)):
            return False
        count -= 1
    if "poolmanager" in attributes:
        manager = attributes["poolmanager"]
        if (
            type(manager) is not PoolManager
            or not manager.connection_pool_kw.keys() <= PLAIN_POOL_SETTINGS
            or manager.headers
            or manager.pool_classes_by_scheme is not pool_classes_by_scheme
        ):
            return False
        count -= 1
    return count == PLAIN_ATTRIBUTES


def seconds_of(timeout: Any) -> tuple[float | None, float | None] | None:
    """Connect and read timeout; None where requests will complain of them, or has to count them together."""
    if timeout is None:
        return None, None
    if type(timeout) in NUMBERS:
        return (timeout, timeout) if timeout > 0 else None
    if type(timeout) is tuple and len(timeout) == 2:
        connect, read = timeout
    elif type(timeout) is Timeout and timeout.total is None:
        connect, read = timeout._connect, timeout._read
    else:
        return None
    if all(each is None or type(each) in NUMBERS and each > 0 for each in (connect, read)):
        return connect, read
    return None


def response_of(adapter: HTTPAdapter, request: PreparedRequest, answer: Answer | StreamedAnswer) -> Response:
    """Return the response that HTTPAdapter.build_response would make of an answer."""
    if type(answer) is not Answer:
        return adapter.build_response(request, answer)
    fields = answer.head.fields
    headers: Any = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
    headers._store = store = OrderedDict(fields)
    if len(fields) < len(answer.head.lines):
        for key, values in fields.items():
            if len(values) > 2:
                store[key] = (values[0], ", ".join(values[1:]))
    content_type = fields.get("content-type")
    # Not Response(): its __init__ makes a dictionary to throw away. A test compares the attributes.
    response: Any = Response.__new__(Response)
    response._content = False
    response._content_consumed = False
    response._next = None
    response.status_code = answer.status
    response.headers = headers
    response.encoding = encoding_of(store["content-type"][1]) if content_type is not None else None
    response.raw = answer
    response.reason = answer.reason
    response.url = request.url
    response.history = []
    response.cookies = RequestsCookieJar()
    response.elapsed = NO_TIME
    if answer.sets_cookies:
        extract_cookies_to_jar(response.cookies, request, answer)  # type: ignore[no-untyped-call]
    response.request = request
    response.connection = adapter
    made: Response = response
    return made


@lru_cache(maxsize=200)
def encoding_of(content_type: str) -> str | None:
    """Return the encoding that requests would assume."""
    return get_encoding_from_headers(CaseInsensitiveDict({"content-type": content_type}))


def _given_up(exc: MaxRetryError, request: PreparedRequest) -> RequestException:
    reason = exc.reason
    if isinstance(reason, ConnectTimeoutError) and not isinstance(reason, NewConnectionError):
        return ConnectTimeout(exc, request=request)
    if isinstance(reason, ResponseError):
        return RetryError(exc, request=request)
    if isinstance(reason, Urllib3SSLError):
        return SSLError(exc, request=request)
    return ConnectionError(exc, request=request)
