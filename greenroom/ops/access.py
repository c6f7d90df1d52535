"""Access to the ops process: which clients may ask it.

    1. Host      an address, `localhost`, or a name that was set: else a page of somebody's site, whose name was pointed
                 at 127.0.0.1 (DNS rebinding), could read ours in the operator's browser
    2. site      what another site's page asks for is refused (Sec-Fetch-Site); only a link to the page itself may come
                 from elsewhere
    3. token     if one is set: from everybody, in `Authorization: Bearer` or in the cookie that the form gave
    4. no token  only this machine: a peer that is loopback and no proxy; what came through a proxy comes from anywhere

To change something takes a header that no other site's page can send.
"""

import ipaddress
from dataclasses import dataclass
from email.message import Message
from http.cookies import CookieError, SimpleCookie

from ..loopback import is_loopback

COOKIE = "greenroom_ops"
CHANGE_HEADER = "X-Greenroom"
# Fields that proxies add. nginx speaks HTTP/1.0 to the servers behind it, unless it is told otherwise.
PROXY_HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
PROXY_VERSION = "HTTP/1.0"


@dataclass(frozen=True)
class Refusal:
    status: int
    reason: str


class Access:
    """Runs on: a thread of the ops process."""

    def __init__(self, token: str, host_names: tuple[str, ...] = ()) -> None:
        self.token = token
        self.host_names = ("localhost", *host_names)

    def refusal(
        self, peer: str, headers: Message, version: str = "HTTP/1.1", *, is_page: bool = False
    ) -> Refusal | None:
        """Why this request may not be answered; None: it may. `headers` finds names in any case."""
        return self.site_refusal(headers, is_page=is_page) or self._identity_refusal(peer, headers, version)

    def site_refusal(self, headers: Message, *, is_page: bool) -> Refusal | None:
        host = headers.get("Host", "")
        if not self._is_known(host):
            return Refusal(421, f"This page is not called {host[:100]!r}. Use its address, or set GREENROOM_OPS_HOSTS.")
        site = headers.get("Sec-Fetch-Site", "none")
        is_link = (
            is_page and headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        )
        if site not in ("none", "same-origin") and not is_link:
            return Refusal(403, "Another site's page asked for this.")
        return None

    def _identity_refusal(self, peer: str, headers: Message, version: str) -> Refusal | None:
        if self.token:
            if self._is_token(headers.get("Authorization", "")) or self._is_cookie(headers.get("Cookie", "")):
                return None
            return Refusal(401, "A token is needed: GREENROOM_OPS_TOKEN of the server.")
        if not is_loopback(peer):
            return Refusal(403, "Without GREENROOM_OPS_TOKEN only this machine may ask.")
        if version == PROXY_VERSION or any(headers.get(name) is not None for name in PROXY_HEADERS):
            return Refusal(403, "This came through a proxy, from anywhere. Set GREENROOM_OPS_TOKEN to allow it.")
        return None

    def may_change(self, headers: Message) -> bool:
        return headers.get(CHANGE_HEADER) == "1"

    def is_right(self, token: str) -> bool:
        return bool(self.token) and _are_same(token, self.token)

    def cookie(self, *, is_secure: bool) -> str:
        """The cookie after the token was shown: it says nothing about the token and outlives this process."""
        secure = "; Secure" if is_secure else ""
        return f"{COOKIE}={self._proof()}; Path=/; HttpOnly; SameSite=Strict; Max-Age=604800{secure}"

    def _proof(self) -> str:
        import hmac

        return hmac.digest(self.token.encode(), b"greenroom ops cookie", "sha256").hex()

    def _is_token(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and self.is_right(token.strip())

    def _is_cookie(self, header: str) -> bool:
        try:
            morsel = SimpleCookie(header).get(COOKIE)
        except CookieError:
            return False
        return morsel is not None and _are_same(morsel.value, self._proof())

    def _is_known(self, host: str) -> bool:
        name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self.host_names
        return True


def _are_same(given: str, right: str) -> bool:
    """Compare in a time that says nothing about either."""
    # Imported where there is a token: it loads the libraries of TLS, four megabytes of this process.
    import hmac

    return hmac.compare_digest(given.encode(), right.encode())
