"""The replacements in `requests`: how it sends, when it makes pools of its own, where cookies are."""

from typing import Any

import requests.adapters
import requests.auth
import requests.cookies
import requests.sessions
from requests.adapters import DEFAULT_POOLBLOCK, DEFAULT_POOLSIZE, DEFAULT_RETRIES, HTTPAdapter
from urllib3.util.retry import Retry

from ... import forking, observing
from ...replacements import Put, Replace, part
from . import cookies, memo
from .adapter import Transport
from .answer import Answer, StreamedAnswer
from .fast_path import replace_whole
from .pool import Origin

_transport: Transport | None = None


@part("requests")
def install(put: Put, *, connections: int, idle_seconds: float, age_seconds: float, tells_budget: bool) -> None:
    """Let `requests` send through our pools, sessions that exist already included.

    Runs on: the main thread, after patching.
    """
    global _transport
    _transport = Transport(
        HTTPAdapter.send,
        connections=connections,
        idle_seconds=idle_seconds,
        age_seconds=age_seconds,
        tells_budget=tells_budget,
    )
    put_in_place(_transport, put)
    observing.show(observing.upstream_pools, upstream_pools)
    forking.in_child(_transport.forget)


class View:
    """The connections to one upstream, as insight sees them."""

    def __init__(self, origin: Origin) -> None:
        self.name = f"{origin.scheme}://{origin.where}"
        self.limit = origin.limit
        self.in_use = origin.open - len(origin.idle)
        self.waiting = len(origin.waiting)


def upstream_pools() -> list[View]:
    """Runs on: any thread."""
    pools = None if _transport is None else _transport.pools
    return [] if pools is None else [View(origin) for origin in list(pools.origins.values()) if origin.is_used()]


def is_installed() -> bool:
    return _transport is not None


def put_in_place(transport: Transport, replace: Replace) -> None:
    """All that is replaced, with `replace(owner, name, value)`."""

    def send(
        self: HTTPAdapter,
        request: Any,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Any:
        return transport.send(self, request, stream, timeout, verify, cert, proxies)

    send.__doc__ = HTTPAdapter.send.__doc__
    whole = replace_whole(transport, replace)
    replace(HTTPAdapter, "send", send)
    _make_pool_managers_late(transport, replace)
    _seek_cookies_where_they_are(replace)
    memo.replace_all(replace)
    if whole is not None:
        whole.is_in_place()


def _make_pool_managers_late(transport: Transport, replace: Replace) -> None:
    """An HTTPAdapter's own pools and retries are made when they are asked for: most adapters never need them now."""
    original_init: Any = HTTPAdapter.init_poolmanager
    original_close: Any = HTTPAdapter.close

    original_create: Any = HTTPAdapter.__init__

    def create(
        self: HTTPAdapter,
        pool_connections: int = DEFAULT_POOLSIZE,
        pool_maxsize: int = DEFAULT_POOLSIZE,
        max_retries: Any = DEFAULT_RETRIES,
        pool_block: bool = DEFAULT_POOLBLOCK,
    ) -> None:
        if type(self) is not HTTPAdapter or max_retries != DEFAULT_RETRIES:
            original_create(self, pool_connections, pool_maxsize, max_retries, pool_block)
            return
        self.config = {}
        self.proxy_manager = {}
        init_poolmanager(self, pool_connections, pool_maxsize, pool_block)

    def init_poolmanager(
        self: HTTPAdapter, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any
    ) -> None:
        if type(self) is not HTTPAdapter or pool_kwargs:
            original_init(self, connections, maxsize, block, **pool_kwargs)
            return
        self._pool_connections = connections  # type: ignore[attr-defined]
        self._pool_maxsize = maxsize  # type: ignore[attr-defined]
        self._pool_block = block  # type: ignore[attr-defined]

    def make_late(self: HTTPAdapter, name: str) -> Any:
        attributes = self.__dict__
        if name == "max_retries" and "_pool_block" in attributes:
            self.max_retries = retries = Retry(0, read=False)
            return retries
        if name != "poolmanager" or "_pool_block" not in attributes:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        original_init(
            self, attributes["_pool_connections"], attributes["_pool_maxsize"], block=attributes["_pool_block"]
        )
        return attributes["poolmanager"]

    def close(self: HTTPAdapter) -> None:
        transport.close(self)
        if "poolmanager" in self.__dict__ or type(self) is not HTTPAdapter:
            original_close(self)
            return
        for proxy in self.proxy_manager.values():
            proxy.clear()

    create.__doc__ = original_create.__doc__
    replace(HTTPAdapter, "__init__", create)
    replace(HTTPAdapter, "init_poolmanager", init_poolmanager)
    replace(HTTPAdapter, "__getattr__", make_late)
    replace(HTTPAdapter, "close", close)


def _seek_cookies_where_they_are(replace: Replace) -> None:
    """Our answers know whether they set cookies, without http.client's message being made to look into."""
    original: Any = requests.cookies.extract_cookies_to_jar

    def extract_cookies_to_jar(jar: Any, request: Any, response: Any) -> None:
        if type(response) in (Answer, StreamedAnswer):
            if not response.sets_cookies:
                return
        elif "set-cookie" not in (getattr(getattr(response, "_original_response", None), "msg", None) or ()):
            original(jar, request, response)
            return
        original(jar, request, response)
        cookies.note_set(jar, request.url)

    for module in (requests.cookies, requests.sessions, requests.adapters, requests.auth):
        replace(module, "extract_cookies_to_jar", extract_cookies_to_jar)
