"""Rules for every request and response: proxies believed or not, HTTPS in production, security headers."""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from flask import Flask, redirect, request
from secure import Secure
from secure.headers import (
    ContentSecurityPolicy,
    CrossOriginOpenerPolicy,
    CrossOriginResourcePolicy,
    PermissionsPolicy,
    ReferrerPolicy,
    StrictTransportSecurity,
    XContentTypeOptions,
    XFrameOptions,
)
from werkzeug.middleware.proxy_fix import ProxyFix

from .addresses import plain_address
from .config import Config

HSTS_SECONDS = 31_536_000
FORWARDED = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_FORWARDED",
)
# A load balancer asks these over plain HTTP from inside.
PLAIN_HTTP_PATHS = ("/healthz", "/readyz")


def init_app(app: Flask, config: Config) -> None:
    app.wsgi_app = TrustedProxies(app.wsgi_app, config.trusted_proxies)  # type: ignore[method-assign]
    if config.is_production:
        app.before_request(lambda: require_https(config.PUBLIC_URL))
    headers = response_headers(is_production=config.is_production).headers

    @app.after_request
    def set_security_headers(response: Any) -> Any:
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response


def response_headers(*, is_production: bool) -> Secure:
    """The headers of every response. Scripts, styles and data come from this server only; nobody may frame a page."""
    policy = (
        ContentSecurityPolicy()
        .default_src("'none'")
        .script_src("'self'")
        .style_src("'self'")
        .img_src("'self'", "data:")
        .connect_src("'self'")
        .form_action("'self'")
        .base_uri("'none'")
        .frame_ancestors("'none'")
    )
    return Secure(
        csp=policy,
        hsts=StrictTransportSecurity().max_age(HSTS_SECONDS).include_subdomains() if is_production else None,
        xfo=XFrameOptions().deny(),
        xcto=XContentTypeOptions().nosniff(),
        referrer=ReferrerPolicy().same_origin(),
        permissions=PermissionsPolicy().geolocation().microphone().camera(),
        coop=CrossOriginOpenerPolicy().same_origin(),
        corp=CrossOriginResourcePolicy().same_origin(),
    )


def require_https(public_url: str) -> Any:
    """Send a browser that came over plain HTTP to the same page over HTTPS; refuse anything but GET and HEAD.

    To PUBLIC_URL and not to the host that was asked for: a Host header can name any server.
    """
    if request.is_secure or request.path in PLAIN_HTTP_PATHS:
        return None
    if request.method in ("GET", "HEAD"):
        return redirect(public_url + quoted_path(), code=308)
    return {
        "type": "about:blank",
        "title": "HTTPS required",
        "status": 403,
        "detail": "Use https://. What you just sent went over the network unencrypted.",
    }, 403


def quoted_path() -> str:
    """The path and query of the request, as a URL has them."""
    query = quote(request.query_string, safe="%/:@!$&'()*+,;=?-._~")
    return quote(request.path, safe="/:@!$&'()*+,;=-._~") + (f"?{query}" if query else "")


class TrustedProxies:
    """WSGI middleware: believes X-Forwarded-* from the named peers and removes it from everybody else's requests."""

    def __init__(self, application: Callable[..., Iterable[bytes]], trusted: Iterable[str]) -> None:
        names = list(trusted)
        self.application = application
        self.behind_proxy = ProxyFix(application, x_for=1, x_proto=1, x_host=1, x_port=1)  # type: ignore[arg-type]
        self.is_unix_trusted = "unix" in names
        self.networks = [ipaddress.ip_network(name, strict=False) for name in names if name != "unix"]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.trusts(environ.get("REMOTE_ADDR", "")):
            keep_plain_address(environ)
            return self.behind_proxy(environ, start_response)
        for name in FORWARDED:
            environ.pop(name, None)
        return self.application(environ, start_response)

    def trusts(self, peer: str) -> bool:
        if not peer:
            return self.is_unix_trusted
        # A socket that listens on [::] shows IPv4 peers as ::ffff:10.0.0.1.
        address = plain_address(peer)
        return address is not None and any(address in network for network in self.networks)


def keep_plain_address(environ: dict[str, Any]) -> None:
    """Leave in X-Forwarded-For what the proxy itself added, the last entry, as a plain address.

    Some proxies write a port, a new one for each connection. A value that is no address ("unknown") is dropped: the
    client then counts as the proxy.
    """
    address = plain_address(environ.pop("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2])
    if address is not None:
        environ["HTTP_X_FORWARDED_FOR"] = str(address)
