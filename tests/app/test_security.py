from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, request
from flask.testing import FlaskClient

from app import create_app
from app.extensions import db
from app.security import TrustedProxies

PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": "k" * 32,
    "PUBLIC_URL": "https://boards.example",
    "MAIL_SERVER": "mail.example",
}
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}


@pytest.fixture(scope="module")
def odd_app(_app: Flask, postgres_url: str, instance_path: Path) -> Iterator[Flask]:
    """The application with views that answer in every way there is. `_app` has migrated the database."""
    app = create_app({"DATABASE_URL": postgres_url, "INSTANCE_PATH": str(instance_path)})
    add_views(app)
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture(scope="module")
def production_app(_app: Flask, postgres_url: str, instance_path: Path) -> Iterator[Flask]:
    environ = {"DATABASE_URL": postgres_url, "INSTANCE_PATH": str(instance_path), "TRUSTED_PROXIES": "10.0.0.0/8"}
    app = create_app(environ | PRODUCTION)
    add_views(app)
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def production(production_app: Flask) -> FlaskClient:
    return production_app.test_client()


def add_views(app: Flask) -> None:
    @app.get("/odd/crash")
    def crash() -> None:
        raise RuntimeError("a bug")

    @app.get("/odd/problem")
    def problem() -> None:
        abort(418, "short and stout")

    @app.get("/odd/abort/<int:status>")
    def give_up(status: int) -> None:
        abort(status)

    @app.get("/odd/stream")
    def stream() -> Any:
        return (piece for piece in ("a", "b"))

    @app.get("/odd/who")
    def who() -> dict[str, Any]:
        return {"address": request.remote_addr, "scheme": request.scheme, "host": request.host}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/healthz", 200),
        ("/static/boards.css", 200),
        ("/static/none.css", 404),
        ("/none", 404),
        ("/boards/none", 404),
        ("/sign-out", 405),
        ("/tokens", 302),
        ("/odd/crash", 500),
        ("/odd/problem", 418),
        ("/odd/abort/403", 403),
        ("/odd/abort/413", 413),
        ("/odd/stream", 200),
        ("/demo/payload/10", 200),
        ("/api/boards", 200),
        ("/api/none", 404),
    ],
)
def test_every_response_carries_every_header(odd_app: Flask, path: str, status: int) -> None:
    with odd_app.test_client().get(path) as response:
        headers = response.headers

    assert response.status_code == status
    assert {part.strip() for part in headers["Content-Security-Policy"].split(";") if part.strip()} == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"].upper() == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert {"geolocation=()", "microphone=()", "camera=()"} == set(headers["Permissions-Policy"].split(", "))
    assert "Strict-Transport-Security" not in headers  # development has no HTTPS to insist on
    assert all(len(headers.getlist(name)) == 1 for name in headers.keys() if name != "Vary")


@pytest.mark.parametrize("path", ["/odd/crash", "/api/none", "/none", "/odd/problem"])
def test_no_error_tells_how_the_inside_looks(odd_app: Flask, path: str) -> None:
    text = odd_app.test_client().get(path).text

    assert "Traceback" not in text
    assert "a bug" not in text
    assert ".py" not in text


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 429, 500, 503])
def test_errors_are_pages_of_ours(odd_app: Flask, status: int) -> None:
    response = odd_app.test_client().get(f"/odd/abort/{status}")

    assert response.status_code == status
    assert "boards.css" in response.text
    assert f'<p class="code" aria-hidden="true">{status}</p>' in response.text


def test_an_error_page_keeps_the_headers_of_its_error(odd_app: Flask) -> None:
    assert set(odd_app.test_client().get("/sign-out").headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("path", ["/", "/none", "/static/boards.css"])
def test_production_insists_on_https(production: FlaskClient, path: str) -> None:
    with production.get(path, base_url="https://boards.example") as response:
        assert response.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


def test_plain_http_is_sent_to_https_at_our_own_address(production: FlaskClient) -> None:
    response = production.get("/boards/a%20b?x=%0d%0a&y=ü", base_url="http://evil.example")

    assert response.status_code == 308
    assert response.location == "https://boards.example/boards/a%20b?x=%0d%0a&y=%C3%BC"


def test_a_path_that_looks_like_a_host_stays_a_path(production: FlaskClient) -> None:
    response = production.get("/", base_url="http://boards.example", environ_overrides={"PATH_INFO": "//evil.example"})

    assert response.location == "https://boards.example/evil.example"


def test_what_was_posted_over_plain_http_is_refused(production: FlaskClient) -> None:
    response = production.post("/sign-in", data={"password": "secret"}, base_url="http://boards.example")

    assert response.status_code == 403
    assert "Use https://" in response.json["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_come_over_plain_http(production: FlaskClient, path: str) -> None:
    assert production.get(path, base_url="http://10.1.2.3:8000").status_code == 200


def test_a_proxy_that_ended_tls_says_so_and_is_believed(production: FlaskClient) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "boards.example"}

    response = production.get("/odd/who", headers=forwarded, environ_overrides={"REMOTE_ADDR": "10.9.9.9"})

    assert response.json == {"address": "203.0.113.9", "scheme": "https", "host": "boards.example"}


def test_anybody_else_who_says_so_is_not_believed(production: FlaskClient) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}

    response = production.get("/odd/who", headers=forwarded, environ_overrides={"REMOTE_ADDR": "198.51.100.1"})

    assert response.status_code == 308


def test_only_the_last_address_is_believed_because_the_proxy_added_it(production: FlaskClient) -> None:
    forwarded = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9", "X-Forwarded-Proto": "https"}

    response = production.get("/odd/who", headers=forwarded, environ_overrides={"REMOTE_ADDR": "10.9.9.9"})

    assert response.json["address"] == "203.0.113.9"


def test_forwarded_headers_of_strangers_are_removed_and_not_only_ignored(odd_app: Flask) -> None:
    seen = {}

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return []

    names = ("FOR", "PROTO", "HOST", "PORT", "PREFIX")
    environ = {f"HTTP_X_FORWARDED_{name}": "x" for name in names} | {"HTTP_FORWARDED": "for=x"}
    TrustedProxies(application, ["10.0.0.0/8"])({"REMOTE_ADDR": "192.0.2.1", **environ}, None)

    assert seen == {"REMOTE_ADDR": "192.0.2.1"}


@pytest.mark.parametrize(
    ("trusted", "peer", "is_believed"),
    [
        ([], "127.0.0.1", False),
        (["127.0.0.1"], "127.0.0.1", True),
        (["10.0.0.0/8"], "10.200.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["10.0.0.0/8"], "::ffff:11.0.0.1", False),
        (["fd00::/8"], "fd00::1", True),
        (["10.0.0.0/8"], "fd00::1", False),
        (["unix"], "", True),
        (["10.0.0.0/8"], "", False),
        (["unix"], "10.0.0.1", False),
        (["10.0.0.0/8"], "not an address", False),
    ],
)
def test_a_proxy_is_trusted_by_its_name_only(trusted: list[str], peer: str, is_believed: bool) -> None:
    assert TrustedProxies(lambda *_: [], trusted).trusts(peer) is is_believed


def test_signing_in_over_https_needs_a_page_of_ours_as_referrer(production: FlaskClient) -> None:
    https = "https://boards.example"
    page = production.get("/sign-in", base_url=https).text
    token = page.partition('name="csrf_token" type="hidden" value="')[2].partition('"')[0]
    form = {"csrf_token": token, "email": "nobody@example.org", "password": "wrong password"}

    def post(referrer: str) -> int:
        return production.post("/sign-in", data=form, base_url=https, headers={"Referer": referrer}).status_code

    assert post("https://evil.example/") == 400
    assert post(f"{https}/sign-in") == 422


def test_a_body_that_is_too_large_is_refused(odd_app: Flask) -> None:
    client = odd_app.test_client()

    assert client.post("/sign-in", data={"email": "x" * 2_000_000}).status_code == 413


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("1.2.3.4:5678", "1.2.3.4"),
        ("6.6.6.6:1, 1.2.3.4:5678", "1.2.3.4"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("[2001:0DB8:0::1]", "2001:db8::1"),
        ('"[2001:db8::1]:80"', "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:1.2.3.4]:99", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", "10.9.9.9"),
        ("1.2.3.4, unknown", "10.9.9.9"),
        ("1.2.3.4,", "10.9.9.9"),
        ("", "10.9.9.9"),
    ],
)
def test_a_forwarded_address_is_one_however_the_proxy_writes_it(
    production: FlaskClient, forwarded: str, address: str
) -> None:
    headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}

    response = production.get("/odd/who", headers=headers, environ_overrides={"REMOTE_ADDR": "10.9.9.9"})

    assert response.json["address"] == address
