"""Answers that `requests` works out anew for each request although they are known: half of the time that it takes.

Each function here stands in for one of requests' with the same name and the same answer: where the case is one that it
knows, at once, in all others by asking the original. No answer is remembered; of the environment, only which variables
it had when it named no proxy.
"""

import os
import sys
from collections import OrderedDict
from typing import Any

import requests.sessions
import requests.utils
from requests._internal_utils import _VALID_HEADER_NAME_RE_STR, _VALID_HEADER_VALUE_RE_STR
from requests.cookies import RequestsCookieJar
from requests.models import PreparedRequest
from requests.sessions import Session
from requests.structures import CaseInsensitiveDict

from ...replacements import Replace
from .head import target_of

# Mappings whose items() are what they seem.
PLAIN_MAPPINGS = (dict, OrderedDict, CaseInsensitiveDict)
# Proxy settings come from the environment alone; macOS and Windows have other places, too.
ONLY_ENVIRONMENT = sys.platform not in ("darwin", "win32")
Environ: Any = os._Environ


def replace_all(replace: Replace) -> None:
    """Put the shortcuts in place with `replace(owner, name, value)`, in each module of requests that has the name."""
    functions = {
        "to_key_val_list": to_key_val_list_over(requests.utils.to_key_val_list),
        "get_auth_from_url": get_auth_from_url_over(requests.utils.get_auth_from_url),
        "get_netrc_auth": get_netrc_auth_over(requests.utils.get_netrc_auth),
        "merge_setting": merge_setting_over(requests.sessions.merge_setting),
        "get_cookie_header": get_cookie_header_over(requests.cookies.get_cookie_header),
    }
    if ONLY_ENVIRONMENT:
        functions["get_environ_proxies"] = Environment(requests.utils.get_environ_proxies).get_environ_proxies
    modules = ("adapters", "auth", "cookies", "models", "sessions", "utils")
    for name, function in functions.items():
        for module in (getattr(requests, module_name) for module_name in modules):
            if hasattr(module, name):
                replace(module, name, function)
    replace(PreparedRequest, "prepare_url", prepare_url_over(PreparedRequest.prepare_url))
    replace(PreparedRequest, "prepare_headers", prepare_headers_over(PreparedRequest.prepare_headers))
    replace(CaseInsensitiveDict, "__init__", init_over(CaseInsensitiveDict.__init__))
    replace(CaseInsensitiveDict, "copy", copy)
    replace(Session, "prepare_request", prepare_request_over(Session.prepare_request, PreparedRequest.prepare))
    replace(Session, "resolve_redirects", resolve_redirects_over(Session.resolve_redirects))


def to_key_val_list_over(original: Any) -> Any:
    def to_key_val_list(value: Any) -> Any:
        return list(value.items()) if type(value) in PLAIN_MAPPINGS else original(value)

    return to_key_val_list


def merge_setting_over(original: Any) -> Any:
    def merge_setting(request_setting: Any, session_setting: Any, dict_class: Any = OrderedDict) -> Any:
        if session_setting is None:
            return request_setting
        if request_setting is None:
            return session_setting
        if type(request_setting) not in PLAIN_MAPPINGS or type(session_setting) not in PLAIN_MAPPINGS:
            return original(request_setting, session_setting, dict_class)
        if not request_setting and not session_setting:
            return dict_class()
        merged = dict_class(session_setting if dict_class is CaseInsensitiveDict else session_setting.items())
        for name, value in request_setting.items():
            merged[name] = value
        for name in [name for name, value in merged.items() if value is None]:
            del merged[name]
        return merged

    return merge_setting


def get_auth_from_url_over(original: Any) -> Any:
    def get_auth_from_url(url: Any) -> Any:
        return ("", "") if type(url) is str and "@" not in url else original(url)

    return get_auth_from_url


def get_cookie_header_over(original: Any) -> Any:
    def get_cookie_header(jar: Any, request: Any) -> Any:
        return None if type(jar) is RequestsCookieJar and not jar._cookies else original(jar, request)  # type: ignore[attr-defined]

    return get_cookie_header


def prepare_url_over(original: Any) -> Any:
    def prepare_url(self: PreparedRequest, url: Any, params: Any) -> None:
        # A URL that needs no quoting, has no dots to resolve and an ordinary host stays as it is.
        if not params and type(params) in (dict, OrderedDict) and is_prepared(url):
            self.url = url
        else:
            original(self, url, params)

    return prepare_url


def is_prepared(url: Any) -> bool:
    """Whether requests would leave this URL as it is."""
    target = target_of(url)
    return (
        target is not None
        and "/." not in target.path
        and "%" not in target.path
        and "#" not in url
        and "@" not in url
        and "[" not in url
        and target.host.isascii()
    )


def prepare_headers_over(original: Any) -> Any:
    def prepare_headers(self: PreparedRequest, headers: Any) -> None:
        if type(headers) is not CaseInsensitiveDict:
            original(self, headers)
            return
        for name, value in headers._store.values():  # type: ignore[attr-defined]
            if not (
                type(name) is str
                and type(value) is str
                and _VALID_HEADER_NAME_RE_STR.match(name)
                and _VALID_HEADER_VALUE_RE_STR.match(value)
            ):
                original(self, headers)  # raises, or knows what to do with bytes
                return
        self.headers = CaseInsensitiveDict(headers)

    return prepare_headers


def init_over(original: Any) -> Any:
    plain: Any = CaseInsensitiveDict

    def __init__(self: Any, data: Any = None, **kwargs: Any) -> None:
        if type(self) is not plain or kwargs:
            original(self, data, **kwargs)
        elif data is None:
            self._store = OrderedDict()
        elif type(data) is plain:
            self._store = data._store.copy()
        elif type(data) is dict:
            self._store = store = OrderedDict()
            for name, value in data.items():
                store[name.lower()] = (name, value)
        else:
            original(self, data)

    return __init__


def copy(self: Any) -> Any:
    made: Any = CaseInsensitiveDict()
    made._store = self._store.copy()
    return made


def prepare_request_over(original: Any, prepare: Any) -> Any:
    """`prepare` is requests' own; code that has replaced it since wants its own called."""
    sessions: Any = requests.sessions

    def prepare_request(self: Session, request: Any) -> Any:
        url = request.url
        is_plain = (
            request.method in ("GET", "HEAD")
            and type(url) is str
            and "@" not in url
            and not (request.data or request.files or request.auth or request.cookies or self.auth)
            and type(request.data) in (dict, list)
            and request.json is None
            and type(self.cookies) is RequestsCookieJar
            and PreparedRequest.prepare is prepare
        )
        if not is_plain or (self.trust_env and sessions.get_netrc_auth(url)):
            return original(self, request)
        # The steps of PreparedRequest.prepare, without those for bodies and logins.
        prepared = PreparedRequest()
        prepared.method = request.method
        prepared.prepare_url(url, sessions.merge_setting(request.params, self.params))
        prepared.prepare_headers(sessions.merge_setting(request.headers, self.headers, CaseInsensitiveDict))
        cookies = RequestsCookieJar()
        if self.cookies._cookies:  # type: ignore[attr-defined]
            cookies.update(self.cookies)
        prepared.prepare_cookies(cookies)
        prepared.prepare_hooks(sessions.merge_hooks(request.hooks, self.hooks))
        return prepared

    return prepare_request


def resolve_redirects_over(original: Any) -> Any:
    def resolve_redirects(self: Session, resp: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, resp, req, *args, **kwargs) if self.get_redirect_target(resp) else iter(())

    return resolve_redirects


class Environment:
    """The proxies of the environment, answered at once as long as it names none."""

    def __init__(self, original: Any) -> None:
        self.original = original
        self.getproxies = requests.utils.getproxies  # type: ignore[attr-defined]
        self._seen: Any = None

    def get_environ_proxies(self, url: Any, no_proxy: Any = None) -> Any:
        return {} if self.names_none() else self.original(url, no_proxy=no_proxy)

    def names_none(self) -> bool:
        environ: Any = os.environ
        # Somebody may have put another mapping in its place, or asks somewhere else.
        if type(environ) is not Environ or requests.utils.getproxies is not self.getproxies:  # type: ignore[attr-defined]
            return False
        # The mapping behind os.environ, which encodes and decodes for each look at a variable. Comparing with a copy is
        # one call (2 microseconds for 60 variables): values that were not replaced are the same objects.
        now = environ._data
        if now == self._seen:
            return True
        if any(name.lower().endswith(b"_proxy") for name in now):
            return False
        self._seen = now.copy()
        return True


def get_netrc_auth_over(original: Any) -> Any:
    def get_netrc_auth(url: Any, raise_errors: bool = False) -> Any:
        home = os.environ.get("HOME")
        if not home or os.environ.get("NETRC") is not None:
            return original(url, raise_errors)
        for name in requests.utils.NETRC_FILES:
            if os.path.exists(f"{home}/{name}"):
                return original(url, raise_errors)
        return None

    return get_netrc_auth
