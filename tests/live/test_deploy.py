"""deploy/ as shipped: nginx.conf and production.env in front of and around the real server in production mode. Only
ports, paths and names are replaced.
"""

import json
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator

import pytest
import requests

from .conftest import LONG_WAIT_SECONDS, ROOT, wait_until
from .production import (
    CURL,
    HSTS,
    SIGN_IN_LIMIT,
    Load,
    Site,
    Upstream,
    needs_openssl,
    site,
    tls,
    upstream,
)

__all__ = ["site", "tls", "upstream"]

pytestmark = needs_openssl


@pytest.mark.skipif(CURL is None, reason="no curl here")
def test_site_speaks_http_2(site: Site) -> None:
    if "HTTP2" not in curl("--version"):
        pytest.skip("this curl has no HTTP/2")

    answer = curl("--http2", "--cacert", str(site.certificate), "--write-out", "\n%{http_version}", site.https + "/")

    assert answer.splitlines()[-1] == "2"
    assert "<!doctype html>" in answer.lower()


def curl(*arguments: str) -> str:
    command = [str(CURL), "--silent", "--show-error", "--max-time", "60", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONG_WAIT_SECONDS).stdout


def test_plain_http_is_sent_to_https_and_a_post_is_refused(site: Site) -> None:
    asked = requests.get(site.http + "/boards/deployed?x=1", allow_redirects=False, timeout=30)
    posted = requests.post(site.http + "/sign-in", data={"password": "in the clear"}, timeout=30)

    assert asked.status_code == 308
    assert asked.headers["Location"] == "https://localhost/boards/deployed?x=1"
    assert posted.status_code == 403


def test_pages_come_over_https_with_hsts_and_a_secure_cookie_and_no_redirect(site: Site) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/sign-in", allow_redirects=False, timeout=30)

    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert re.search(r"; *Secure(;|$)", answer.headers["Set-Cookie"])
    assert "HttpOnly" in answer.headers["Set-Cookie"]


def test_no_answer_tells_versions(site: Site) -> None:
    with site.client() as client:
        answers = [
            client.get(site.https + path, timeout=30) for path in ("/", "/static/boards.css", "/static/none", "/none")
        ]
    answers.append(requests.get(site.http + "/", allow_redirects=False, timeout=30))

    assert [answer.headers["Server"] for answer in answers] == ["nginx"] * 5
    assert not any(re.search(r"nginx/\d|gunicorn", answer.text) for answer in answers)


def test_own_addresses_in_pages_and_redirects_are_those_the_client_used(site: Site) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/tokens", allow_redirects=False, timeout=30)

    assert answer.status_code in (302, 303)
    assert answer.headers["Location"].removeprefix(site.https).startswith("/sign-in")


def test_forged_forwarded_headers_are_not_believed(site: Site) -> None:
    """Sign-in attempts are limited by client address: forging one must not bring new attempts."""
    statuses = [
        attempt(site, "127.0.0.11", {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=198.51.100.{number}"})
        for number in range(SIGN_IN_LIMIT + 1)
    ]

    assert 429 not in statuses[:-1]
    assert statuses[-1] == 429


def test_application_sees_the_address_of_the_client_and_not_the_one_of_nginx(site: Site) -> None:
    for _ in range(SIGN_IN_LIMIT):
        attempt(site, "127.0.0.12", {})

    assert attempt(site, "127.0.0.12", {}) == 429
    assert attempt(site, "127.0.0.13", {}) == 422


def attempt(site: Site, source_address: str, headers: dict[str, str]) -> int:
    """The status of a failing sign-in, each to another account."""
    with site.client(source_address) as client:
        page = client.get(site.https + "/sign-in", timeout=30).text
        csrf = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)
        assert csrf is not None, page
        form = {
            "csrf_token": csrf[1],
            "email": f"{source_address}-{time.monotonic_ns()}@example.org",
            "password": "not the password",
        }
        # As a browser does it: the CSRF protection of HTTPS pages wants to see where the form came from.
        headers = {**headers, "Referer": site.https + "/sign-in"}
        return client.post(site.https + "/sign-in", data=form, headers=headers, timeout=30).status_code


@pytest.mark.parametrize("header", ["X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-Ssl"])
def test_scheme_can_not_be_forged(site: Site, header: str) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/sign-in", headers={header: "http"}, allow_redirects=False, timeout=30)

    assert answer.status_code == 200


def test_events_arrive_before_the_last_source_is_done(site: Site, upstream: Upstream) -> None:
    upstream.gate.clear()

    with (
        site.client() as client,
        client.get(site.https + "/api/boards/deployed/stream", stream=True, timeout=60) as answer,
    ):
        events = source_events(answer)
        first = next(events)
        upstream.gate.set()  # only now: had nginx kept the first event back, the second source would time out
        second = next(events)

    assert first["name"] == "fast"
    assert (second["name"], second.get("status")) == ("gated", 200)


def source_events(answer: requests.Response) -> Iterator[dict[str, object]]:
    assert answer.status_code == 200
    for line in answer.iter_lines():
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def test_static_files_come_from_nginx_with_caching_and_compression(site: Site) -> None:
    with site.client() as client:
        answer = client.get(site.https + "/static/boards.css", timeout=30)
        again = client.get(
            site.https + "/static/boards.css",
            headers={"If-Modified-Since": answer.headers["Last-Modified"]},
            timeout=30,
        )

    assert answer.content == (ROOT / "app" / "static" / "boards.css").read_bytes()
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert again.status_code == 304


def test_body_over_one_megabyte_is_refused_as_a_problem_document(site: Site) -> None:
    with site.client() as client:
        answer = client.post(site.https + "/api/boards", data=b"x" * 1_100_000, timeout=30)

    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 413


def test_body_of_just_under_one_megabyte_reaches_the_application(site: Site) -> None:
    with site.client() as client:
        answer = client.post(site.https + "/api/boards", data=b"x" * 1_048_000, timeout=30)

    assert answer.status_code in (400, 401, 415)


def test_health_checks_answer_over_http_by_address_and_nothing_else_does(site: Site) -> None:
    by_address = f"http://127.0.0.1:{site.nginx.http_port}"

    assert requests.get(by_address + "/healthz", timeout=30).json() == {"status": "ok"}
    assert requests.get(by_address + "/readyz", timeout=30).json() == {"status": "ready"}
    with pytest.raises(requests.ConnectionError):
        requests.get(by_address + "/", timeout=30)


def test_questions_of_a_certificate_authority_are_answered_over_plain_http(site: Site) -> None:
    """As certbot's --webroot has it; everything else of that name is redirected."""
    challenge = site.nginx.folder / "acme/.well-known/acme-challenge/token-1"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("token-1.thumbprint")

    answer = requests.get(site.http + "/.well-known/acme-challenge/token-1", allow_redirects=False, timeout=30)

    assert (answer.status_code, answer.text) == (200, "token-1.thumbprint")
    assert requests.get(site.http + "/elsewhere", allow_redirects=False, timeout=30).status_code == 308


def test_unknown_host_name_is_refused_before_a_certificate_is_shown(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.certificate))

    with (
        socket.create_connection(("127.0.0.1", site.nginx.https_port), timeout=30) as connection,
        pytest.raises(ssl.SSLError, match="unrecognized name"),
    ):
        context.wrap_socket(connection, server_hostname="somebody.example.com")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(site: Site, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(site.certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion.TLSv1"):
        context.minimum_version = context.maximum_version = version

    with (
        socket.create_connection(("127.0.0.1", site.nginx.https_port), timeout=30) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname="localhost")


def test_access_log_has_no_query_and_no_reset_token(site: Site) -> None:
    with site.client() as client:
        client.get(site.https + "/reset-password/a-secret-token", timeout=30)
        client.get(site.https + "/sign-in?next=a-secret-query", timeout=30)
        log = site.nginx.folder / "access.log"
        wait_until(lambda: "GET /sign-in HTTP" in log.read_text(), "the request is logged")

    assert '"GET /reset-password/... HTTP' in log.read_text()
    assert "a-secret" not in log.read_text()


def test_reload_under_load_loses_no_request(site: Site, upstream: Upstream) -> None:
    upstream.gate.set()
    before = {worker.pid for worker in site.server.workers()}
    assert before

    with Load(site) as load:
        wait_until(lambda: load.count() > 20, "the load runs")
        site.server.signal(signal.SIGHUP)
        wait_until(
            lambda: before.isdisjoint(worker.pid for worker in site.server.workers()), "all old workers have left"
        )
        seen = load.count()
        wait_until(lambda: load.count() > seen + 20, "the new workers answer")

    assert load.failures() == []
