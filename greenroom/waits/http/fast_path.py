"""`Session.request` and the bare `requests.get()` in one step, where the call is a usual one.

    GET or HEAD without body, login, cookies, proxies and hooks, for a URL that stays as it is
        -> all that is sent is known but for the budget: no Request, no merging of settings, no search for logins
    anything else -> requests' own Session.request, over the shortcuts

The result is the one of requests: the same response with the same request in it, the same errors. Code that has
replaced a part of requests on the way (instrumentation and mocks do) is called as ever: then nothing is
left out.
"""

import functools
import os
from collections import OrderedDict
from datetime import timedelta
from types import FunctionType
from typing import Any

import requests.api
import requests.cookies
import requests.hooks
import requests.models
import requests.sessions
import requests.utils
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.models import PreparedRequest, Request, Response
from requests.sessions import Session
from requests.structures import CaseInsensitiveDict

from ... import observing
from ...replacements import Replace
from . import logins
from .adapter import Transport, answer_to, is_plain, response_of, seconds_of
from .answer import Answer
from .cookies import note_sent
from .head import lines_of, target_of, without_body
from .memo import ONLY_ENVIRONMENT, is_prepared

METHODS = {"GET": "GET", "get": "GET", "HEAD": "HEAD", "head": "HEAD"}
NO_HOOKS: dict[str, list[Any]] = {"response": []}
PLAIN_MAPPINGS = (dict, CaseInsensitiveDict)
# Methods of a session between request() and the answer. A session with one of them as its own attribute is left alone.
METHODS_ON_THE_WAY = frozenset(
    ("send", "prepare_request", "merge_environment_settings", "get_adapter", "get_redirect_target", "resolve_redirects")
)
# requests is typed, and what is asked for here is not all exported.
adapters: Any = requests.adapters
api: Any = requests.api
models: Any = requests.models
sessions: Any = requests.sessions
utils: Any = requests.utils


def on_the_way() -> tuple[Any, ...]:
    """All of requests that Session.request goes through with a usual call."""
    return (
        Session.send, Session.prepare_request, Session.merge_environment_settings, Session.get_adapter,
        Session.get_redirect_target, Session.resolve_redirects, HTTPAdapter.send, HTTPAdapter.build_response,
        PreparedRequest.prepare, PreparedRequest.prepare_method, PreparedRequest.prepare_url,
        PreparedRequest.prepare_headers, PreparedRequest.prepare_cookies, PreparedRequest.prepare_body,
        PreparedRequest.prepare_auth, PreparedRequest.prepare_hooks, PreparedRequest.__init__, Request.__init__,
        Response.content, Response.iter_content, adapters.Response, sessions.PreparedRequest, sessions.Request,
        sessions.dispatch_hook, sessions.extract_cookies_to_jar, sessions.get_environ_proxies,
        sessions.get_netrc_auth, sessions.merge_setting, sessions.RequestsCookieJar,
        requests.cookies.RequestsCookieJar,
    )  # fmt: skip


def round_about() -> tuple[Any, ...]:
    """Return the functions that requests.request() goes through beside that."""
    return (
        sessions.Session, Session.__init__, Session.__enter__, Session.__exit__, Session.close, Session.mount,
        Session.request, HTTPAdapter.__init__, HTTPAdapter.close, sessions.HTTPAdapter, sessions.default_headers,
        sessions.default_hooks, sessions.cookiejar_from_dict, utils.default_user_agent, utils.DEFAULT_ACCEPT_ENCODING,
    )  # fmt: skip


def is_untouched() -> bool:
    """Whether all that is replaced or left out is requests' own. To be asked before anything is replaced."""
    modules = (adapters, api, models, sessions, utils, requests.cookies, requests.hooks)
    files = {module.__file__ for module in modules}
    parts = [part.fget if isinstance(part, property) else part for part in (*on_the_way(), *round_about())]
    return all(
        isinstance(part, (type, str)) or (type(part) is FunctionType and part.__code__.co_filename in files)
        for part in parts
    )


class Whole:
    """Stands in for Session.request and requests.request; asks `original` what it doesn't know."""

    def __init__(self, transport: Transport, original: Any, original_bare: Any) -> None:
        self.transport = transport
        self.original = original
        self.original_bare = original_bare
        self.on_the_way: Any = None
        self.round_about: Any = None
        self.unused: Any = None  # a session as it is made, for calls without one; nothing ever changes it

    def is_in_place(self) -> None:
        """Everything is replaced: from now on, a part that is another one was replaced by somebody else."""
        self.on_the_way = on_the_way()
        self.round_about = round_about()
        self.unused = Session()

    def request(
        self, session: Any, method: Any, url: Any, params: Any, headers: Any, timeout: Any, allow_redirects: Any,
        stream: Any, verify: Any, cert: Any,
    ) -> Any:  # fmt: skip
        """Return the result of Session.request; None if it has to be asked, and nothing has been done yet.

        Runs on: any greenlet or thread; switches.
        """
        # 1. The session is a usual one, and nobody has put a hand to how it works, or wants to hear of each call.
        attributes = session.__dict__
        if (
            type(session) is not Session
            or observing.on_call is not None
            or on_the_way() != self.on_the_way
            or self.transport.hooks.are_there()
            or session.hooks != NO_HOOKS
            or session.auth is not None
            or session.proxies
            or session.params
            or session.cert is not None
            or type(session.cookies) is not RequestsCookieJar
            or session.cookies._cookies  # type: ignore[attr-defined]
            or not METHODS_ON_THE_WAY.isdisjoint(attributes)
        ):
            return None
        # 2. So is the call.
        method = METHODS.get(method) if type(method) is str else None
        if method is None or params or cert is not None or type(url) is not str or not is_prepared(url):
            return None
        target = target_of(url)
        timeouts = seconds_of(timeout)
        if target is None or timeouts is None:
            return None
        merged = session.headers
        if headers is not None:
            if type(headers) not in PLAIN_MAPPINGS:
                return None
            if headers:
                merged = sessions.merge_setting(headers, merged, CaseInsensitiveDict)
        if type(merged) is not CaseInsensitiveDict:
            return None
        lines = lines_of(tuple(merged._store.values()))  # type: ignore[attr-defined]
        if lines is None:
            return None
        # 3. Nothing in the environment concerns it.
        if session.trust_env:
            if sessions.get_environ_proxies(url, no_proxy=None) or sessions.get_netrc_auth(url):
                return None
        if target.scheme == "https":
            verify = verify_of(session, verify)
        if stream is None:
            stream = session.stream
        adapter: Any = HTTPAdapter() if session is self.unused else session.get_adapter(url)
        transport = self.transport
        pools = transport.pools_here()
        if pools is None or not is_plain(adapter):
            return None
        request = prepared(method, url, lines.store)
        outgoing = without_body(method, target, lines, transport.added(request.headers))
        is_own = logins.in_request(lines.store)
        call = transport.call_to(pools, target, outgoing, method, adapter, timeouts, verify, is_own=is_own)
        if call is None:
            return None
        started = sessions.preferred_clock()
        answer = answer_to(call, request)
        elapsed = sessions.preferred_clock() - started
        response: Any = response_of(adapter, request, answer)
        response.elapsed = timedelta(seconds=elapsed)
        if type(answer) is not Answer or answer.sets_cookies or answer.status in models.REDIRECT_STATI:
            verify = verify_of(session, verify)
            settings = {"timeout": timeout, "stream": stream, "verify": verify, "cert": None, "proxies": OrderedDict()}
            return self._finish(session, request, response, allow_redirects, settings)
        if not stream:
            content = answer.take_whole()
            if content is None:
                _ = response.content
            else:
                response._content = content
                response._content_consumed = True
        return response

    def _finish(
        self, session: Any, request: PreparedRequest, response: Any, allow_redirects: Any, settings: dict[str, Any]
    ) -> Any:
        """The second half of Session.send: cookies, redirects, reading."""
        if session is self.unused:
            session = Session()
        sessions.extract_cookies_to_jar(session.cookies, request, response.raw)
        redirected = session.resolve_redirects(response, request, yield_requests=not allow_redirects, **settings)
        if allow_redirects:
            history = [response, *redirected]
            response = history.pop()
            if history:
                response.history = history
        else:
            response._next = next(redirected, None)
        if not settings["stream"]:
            _ = response.content
        return response


def verify_of(session: Session, verify: Any) -> Any:
    """Return the verification that merge_environment_settings would choose. The same when asked again."""
    if session.trust_env and (verify is True or verify is None):
        verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or verify
    return session.verify if verify is None else verify


def prepared(method: str, url: str, store: Any) -> Any:
    """Return the request that Session.prepare_request would make."""
    request: Any = PreparedRequest.__new__(PreparedRequest)
    headers: Any = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
    headers._store = store.copy()
    request.method = method
    request.url = url
    request.headers = headers
    request._cookies = RequestsCookieJar()
    request.body = None
    request.hooks = {"response": []}
    request._body_position = None
    return request


def replace_whole(transport: Transport, replace: Replace) -> Whole | None:
    """Put it in place with `replace(owner, name, value)`, to be told when all the rest is; None if it can't be."""
    if not ONLY_ENVIRONMENT or not is_untouched():
        return None
    original: Any = Session.request
    original_bare: Any = api.request
    whole = Whole(transport, original, original_bare)

    def request(
        self: Any,
        method: Any,
        url: Any,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        cookies: Any = None,
        files: Any = None,
        auth: Any = None,
        timeout: Any = None,
        allow_redirects: Any = True,
        proxies: Any = None,
        hooks: Any = None,
        stream: Any = None,
        verify: Any = None,
        cert: Any = None,
        json: Any = None,
    ) -> Any:
        if not (data or files or auth or cookies or hooks or proxies) and json is None:
            response = whole.request(self, method, url, params, headers, timeout, allow_redirects, stream, verify, cert)
            if response is not None:
                return response
        if self is not whole.unused:
            if type(self.cookies) is RequestsCookieJar and self.cookies._cookies:  # type: ignore[attr-defined]
                note_sent(self.cookies, url)
            return original(
                self, method, url, params, data, headers, cookies, files, auth, timeout, allow_redirects, proxies,
                hooks, stream, verify, cert, json,
            )  # fmt: skip
        with sessions.Session() as session:
            return original(
                session, method, url, params, data, headers, cookies, files, auth, timeout, allow_redirects, proxies,
                hooks, stream, verify, cert, json,
            )  # fmt: skip

    def bare(method: Any, url: Any, **kwargs: Any) -> Any:
        if round_about() != whole.round_about:
            return original_bare(method, url, **kwargs)
        return request(whole.unused, method, url, **kwargs)

    functools.update_wrapper(request, original)
    functools.update_wrapper(bare, original_bare)
    replace(Session, "request", request)
    for module in (api, requests):
        replace(module, "request", bare)
    return whole
