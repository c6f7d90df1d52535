"""A plain blocking client with cookies, for what comes before a load: a login, looking up what to ask for."""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Unpack

from .request import USER_AGENT, Answer, Asked, Request, request
from .target import Target
from .units import LoadError


@dataclass
class Session:
    """Requests to the target, one after the other; cookies that it sets are kept, and sent by the load as well."""

    target: Target
    timeout_seconds: float = 10.0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.cookies: dict[str, str] = {}
        self.token = ""  # of the header `Authorization: Bearer`

    def get(self, path: str, **more: Unpack[Asked]) -> Answer:
        return self.send(request("GET", path, **more))

    def post(self, path: str, **more: Unpack[Asked]) -> Answer:
        return self.send(request("POST", path, **more))

    def send(self, one: Request) -> Answer:
        """Raises LoadError when there is no answer."""
        host, port = str(self.target.address[0] if self.target.address else self.target.host), self.target.port
        if self.target.is_tls:
            connection: http.client.HTTPConnection = _tls_connection(self.target, self.timeout_seconds, self.tls)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self.timeout_seconds)
        try:
            connection.request(one.method, one.path, one.body or None, self._headers(one.headers))
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise LoadError(f"{one.method} {one.path} before the load had no answer: {exc}") from exc
        finally:
            connection.close()
        for value in answer.headers.get_all("Set-Cookie") or []:
            self._keep(value)
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"Host": self.target.authority, "User-Agent": USER_AGENT, **self.shared_headers, **more}

    @property
    def shared_headers(self) -> dict[str, str]:
        """Return the headers that the requests of the load send as well."""
        found = {}
        if self.cookies:
            found["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if self.token:
            found["Authorization"] = f"Bearer {self.token}"
        return found

    def _keep(self, text: str) -> None:
        try:
            morsels = SimpleCookie(text)
        except CookieError:
            return  # a cookie that no browser would keep either
        for name, morsel in morsels.items():
            if morsel["max-age"] == "0":
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = morsel.coded_value


def _tls_connection(target: Target, timeout: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    return http.client.HTTPSConnection(target.host, target.port, timeout=timeout, context=tls)
