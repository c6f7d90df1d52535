"""Answers that `requests` works out anew for each request although they are known: half of the time that it takes.

Each function here stands in for one of requests' with the same name and the same answer: where the case is one that it
knows, at once, in all others by asking the original. Nothing is remembered that can change unnoticed: what comes from
the environment is worked out again when a variable has changed, what comes from ~/.netrc within a second.
"""

import os
import sys
import threading
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.parse import urlsplit

import requests.sessions
import requests.utils
from requests._internal_utils import _VALID_HEADER_NAME_RE_STR, _VALID_HEADER_VALUE_RE_STR
from requests.cookies import RequestsCookieJar
from requests.models import PreparedRequest, Response
from requests.sessions import Session
from requests.structures import CaseInsensitiveDict

from ... import clock
from .head import target_of

# Mappings whose items() are what they seem.
PLAIN_MAPPINGS = (dict, OrderedDict, CaseInsensitiveDict)
# Proxy settings come from the environment alone; macOS and Windows have other places, too.
ONLY_ENVIRONMENT = sys.platform not in ("darwin", "win32")
MOST_REMEMBERED = 1000
NETRC: Any = os.environ.encodekey("NETRC")
HOME: Any = os.environ.encodekey("HOME")
Replace = Callable[[Any, str, Any], None]


def replace_all(replace: Replace) -> None:
    """Put the shortcuts in place with `replace(owner, name, value)`, in each module of requests that has the name."""
    environment = Environment(requests.utils.get_environ_proxies, requests.utils.should_bypass_proxies)
    functions = {
        "to_key_val_list": to_key_val_list_over(requests.utils.to_key_val_list),
        "get_auth_from_url": get_auth_from_url_over(requests.utils.get_auth_from_url),
        "get_netrc_auth": get_netrc_auth_over(requests.utils.get_netrc_auth),
        "merge_setting": merge_setting_over(requests.sessions.merge_setting),
        "get_cookie_header": get_cookie_header_over(requests.cookies.get_cookie_header),
    }
    if ONLY_ENVIRONMENT:
        functions["get_environ_proxies"] = environment.get_environ_proxies
        functions["should_bypass_proxies"] = environment.should_bypass_proxies
    modules = ("adapters", "auth", "cookies", "models", "sessions", "utils")
    for name, function in functions.items():
        for module in (getattr(requests, module_name) for module_name in modules):
            if hasattr(module, name):
                replace(module, name, function)
    replace(PreparedRequest, "prepare_url", prepare_url_over(PreparedRequest.prepare_url))
    replace(PreparedRequest, "prepare_headers", prepare_headers_over(PreparedRequest.prepare_headers))
    replace(CaseInsensitiveDict, "__init__", init_over(CaseInsensitiveDict.__init__))
    replace(CaseInsensitiveDict, "copy", copy)
    replace(Response, "cookies", LateCookies())
    replace(Session, "prepare_request", prepare_request_over(Session.prepare_request, PreparedRequest.prepare))
    replace(Session, "resolve_redirects", resolve_redirects_over(Session.resolve_redirects))
    make_jars_late(replace)


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
        # What needs no quoting, has no dots to be resolved and an ordinary host stays as it is.
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


class LateCookies:
    """`Response.cookies`, made when somebody asks for them: most answers set none."""

    def __get__(self, response: Any, owner: Any) -> Any:
        if response is None:
            return self
        response.__dict__["cookies"] = jar = RequestsCookieJar()
        return jar


def prepare_request_over(original: Any, prepare: Any) -> Any:
    """`prepare` is requests' own; whoever has replaced it since wants it called."""
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
        # What PreparedRequest.prepare does, without what it does for bodies and logins.
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


def make_jars_late(replace: Replace) -> None:
    """A jar's policy and lock are made when a cookie is dealt with: each request makes two or three jars in vain."""
    original_init: Any = RequestsCookieJar.__init__
    original_state: Any = RequestsCookieJar.__getstate__
    plain: Any = RequestsCookieJar

    def __init__(self: Any, policy: Any = None) -> None:
        if type(self) is not plain or policy is not None:
            original_init(self, policy)
        else:
            self._cookies = {}

    def __getattr__(self: Any, name: str) -> Any:
        if name == "_policy":
            self._policy = made = DefaultCookiePolicy()
            return made
        if name == "_cookies_lock":
            self._cookies_lock = lock = threading.RLock()
            return lock
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self: Any) -> Any:
        _ = self._policy, self._cookies_lock
        return original_state(self)

    replace(RequestsCookieJar, "__init__", __init__)
    replace(RequestsCookieJar, "__getattr__", __getattr__)
    replace(RequestsCookieJar, "__getstate__", __getstate__)


class Environment:
    """What the environment says of proxies, worked out once for each host as long as no variable changes."""

    def __init__(self, original_proxies: Any, original_bypass: Any) -> None:
        self.original_proxies = original_proxies
        self.original_bypass = original_bypass
        self._seen: dict[Any, Any] = {}
        self._has_proxies = True
        self._known: dict[Any, Any] = {}

    def get_environ_proxies(self, url: Any, no_proxy: Any = None) -> Any:
        if not self.has_proxies():
            return {}
        key = ("proxies", origin_of(url), no_proxy)
        known = self._known.get(key)
        if known is None:
            known = self._remember(key, self.original_proxies(url, no_proxy=no_proxy))
        return known.copy()

    def should_bypass_proxies(self, url: Any, no_proxy: Any) -> Any:
        self.has_proxies()
        key = ("bypass", origin_of(url), no_proxy)
        known = self._known.get(key)
        return self._remember(key, self.original_bypass(url, no_proxy=no_proxy)) if known is None else known

    def has_proxies(self) -> bool:
        """Whether the environment names any; forgets what was known when a variable has changed."""
        # Comparing with a copy is one call (2 microseconds for 60 variables), because values that were not replaced are
        # the same objects.
        now = variables()
        if now != self._seen:
            self._seen = dict(now)
            self._known.clear()
            self._has_proxies = bool(urllib.request.getproxies())
        return self._has_proxies

    def _remember(self, key: Any, value: Any) -> Any:
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[key] = value
        return value


def variables() -> Any:
    """The mapping behind os.environ, which encodes and decodes for each look at a variable."""
    return os.environ._data  # type: ignore[attr-defined]


def origin_of(url: Any) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def get_netrc_auth_over(original: Any, now: Callable[[], float] = clock.now) -> Any:
    netrc_file = NetrcFile(now)

    def get_netrc_auth(url: Any, raise_errors: bool = False) -> Any:
        found = netrc_file.found()
        if found is None:
            return None
        host = urlsplit(url).hostname if type(url) is str else None
        if host is None:
            return original(url, raise_errors)
        try:
            logins = read_netrc(*found)
        except (NetrcParseError, OSError):
            return original(url, raise_errors)
        login, account, password = logins.authenticators(host) or ("", "", "")
        return (login or account or "", password or "") if login or account or password else None

    return get_netrc_auth


class NetrcFile:
    """Where the logins are. Looked for at most once a second: asking for two files that aren't there costs as much as
    parsing an answer.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._asked: tuple[Any, Any] = (None, None)
        self._look_again_at = 0.0
        self._found: tuple[str, tuple[int, ...]] | None = None

    def found(self) -> tuple[str, tuple[int, ...]] | None:
        """Path and version of the first file that is there, None if none is."""
        now = self.now()
        asked = (variables().get(NETRC), variables().get(HOME))
        if now >= self._look_again_at or self._asked != asked:
            self._found = self._look(os.environ.get("NETRC"))
            self._asked = asked
            self._look_again_at = now + 1.0
        return self._found

    def _look(self, named: str | None) -> tuple[str, tuple[int, ...]] | None:
        for name in (named,) if named is not None else [f"~/{name}" for name in requests.utils.NETRC_FILES]:
            path = os.path.expanduser(name)
            try:
                found = os.stat(path)
            except (OSError, ValueError):
                continue
            return path, (found.st_mtime_ns, found.st_size, found.st_ino)
        return None


@lru_cache(maxsize=4)
def read_netrc(path: str, version: tuple[int, ...]) -> netrc:
    """The logins in a file, as long as it is of this version."""
    return netrc(path)
