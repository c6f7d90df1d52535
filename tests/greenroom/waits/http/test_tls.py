"""TLS is checked as `requests` checks it, over connections that are kept, with contexts that are made once."""

import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from urllib3.exceptions import InsecureRequestWarning

from greenroom.waits.http import tls
from greenroom.waits.http.adapter import Transport

from .pools import origin_of, wait_until
from .upstream import Upstream, answer

Start = Callable[..., Upstream]
Certificate = tuple[str, str]


@pytest.fixture(autouse=True)
def _no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "_contexts", {})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_that_is_trusted_is_accepted(
    host: str, adapter: str, tls_upstream: Start, certificate: Certificate
) -> None:
    upstream = tls_upstream()
    url = upstream.url.replace("127.0.0.1", host)

    with requests.Session() as session:
        seen = [session.get(url, verify=certificate[0], timeout=20).json()["connection"] for _ in range(3)]

    assert seen == [1, 1, 1]


def test_all_calls_share_a_connection(ours: Transport, tls_upstream: Start, certificate: Certificate) -> None:
    upstream = tls_upstream()

    for _ in range(3):
        assert requests.get(upstream.url, verify=certificate[0], timeout=20).ok
        assert requests.options(upstream.url, verify=certificate[0], data=b"x" * 300_000, timeout=20).ok

    assert upstream.connections == 1
    assert len(tls._contexts) == 1


def test_an_unknown_authority_is_an_ssl_error(adapter: str, tls_upstream: Start) -> None:
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed: self"):
        requests.get(tls_upstream().url, timeout=20)


def test_a_certificate_for_another_host_is_an_ssl_error(
    adapter: str, tls_upstream: Start, certificate: Certificate
) -> None:
    url = tls_upstream().url.replace("127.0.0.1", "127.0.0.2")

    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, verify=certificate[0], timeout=20)


def test_a_certificate_for_another_name_is_an_ssl_error(
    adapter: str, tls_upstream: Start, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = tls_upstream()
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: found("127.0.0.1", *rest, **more))

    with pytest.raises(requests.exceptions.SSLError, match="mismatch.*other.test|other.test.*mismatch"):
        requests.get(f"https://other.test:{upstream.port}/", verify=certificate[0], timeout=20)


def test_an_upstream_that_speaks_no_tls_is_an_ssl_error(adapter: str) -> None:
    def serve() -> None:
        sock, _ = listener.accept()
        sock.recv(1000)
        sock.sendall(answer(b"", "400 Bad Request"))
        sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout=20)
        thread.join(20)


def test_not_checking_warns_each_time(adapter: str, tls_upstream: Start) -> None:
    url = tls_upstream().url

    for _ in range(2):
        with pytest.warns(InsecureRequestWarning, match="127.0.0.1"):
            assert requests.get(url, verify=False, timeout=20).ok


def test_what_was_not_checked_is_not_shared_with_who_checks(ours: Transport, tls_upstream: Start) -> None:
    url = tls_upstream().url
    with pytest.warns(InsecureRequestWarning):
        requests.get(url, verify=False, timeout=20)

    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=20)


def test_files_that_are_missing_are_os_errors(adapter: str, tls_upstream: Start, certificate: Certificate) -> None:
    url = tls_upstream().url

    with pytest.raises(OSError, match="Could not find a suitable TLS CA certificate bundle, invalid path: /nowhere"):
        requests.get(url, verify="/nowhere", timeout=20)
    with pytest.raises(OSError, match="Could not find the TLS certificate file, invalid path: /nowhere"):
        requests.get(url, verify=certificate[0], cert="/nowhere", timeout=20)
    with pytest.raises(OSError, match="Could not find the TLS key file, invalid path: /nowhere"):
        requests.get(url, verify=certificate[0], cert=(certificate[0], "/nowhere"), timeout=20)


def test_a_file_that_is_missing_is_missed_also_where_nobody_listens(adapter: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]

    with pytest.raises(OSError, match="Could not find a suitable TLS CA certificate bundle, invalid path: /nowhere"):
        requests.get(f"https://127.0.0.1:{port}/", verify="/nowhere", timeout=20)


@pytest.mark.parametrize("cert", ["/nowhere", ("/nowhere", "/nor here")])
def test_files_for_tls_are_missed_without_tls_too(cert: Any, adapter: str, upstream: Upstream) -> None:
    with pytest.raises(OSError, match="Could not find the TLS certificate file, invalid path: /nowhere"):
        requests.get(upstream.url, cert=cert, timeout=20)


def test_a_file_that_is_no_certificate_is_refused(adapter: str, tls_upstream: Start, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")

    with pytest.raises(OSError):  # noqa: PT011 - requests' SSLError is one
        requests.get(tls_upstream().url, verify=str(nonsense), timeout=20)


def test_a_clients_certificate_is_shown(adapter: str, tls_upstream: Start, certificate: Certificate) -> None:
    upstream = tls_upstream(asks=True)

    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(upstream.url, verify=certificate[0], timeout=20)
    assert requests.get(upstream.url, verify=certificate[0], cert=certificate, timeout=20).ok


def test_a_connection_with_a_clients_certificate_is_never_shared(
    ours: Transport, tls_upstream: Start, certificate: Certificate
) -> None:
    upstream = tls_upstream()

    with requests.Session() as mine, requests.Session() as yours:
        numbers = [
            session.get(upstream.url, verify=certificate[0], cert=certificate, timeout=20).json()["connection"]
            for session in (mine, yours, mine, requests, yours, requests)
        ]

    assert numbers == [1, 2, 1, 3, 2, 4]


def test_the_bundle_that_the_environment_names_is_used(
    adapter: str, tls_upstream: Start, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tls_upstream().url
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])

    assert requests.get(url, timeout=20).ok


def test_a_bundle_that_changes_is_read_again(
    ours: Transport, tls_upstream: Start, certificate: Certificate, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    shutil.copy(requests.certs.where(), bundle)
    url = tls_upstream().url
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, verify=str(bundle), timeout=20)

    bundle.write_text(Path(certificate[0]).read_text())

    assert requests.get(url, verify=str(bundle), timeout=20).ok


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_the_upstream_closed_is_not_used(
    method: str, ours: Transport, tls_upstream: Start, certificate: Certificate
) -> None:
    upstream = tls_upstream()
    requests.get(upstream.url, verify=certificate[0], timeout=20)
    upstream.drop()

    if method == "POST":
        wait_until(lambda: not origin_of(ours).idle)  # closed as soon as the upstream has
    assert requests.request(method, upstream.url, verify=certificate[0], timeout=20).json()["connection"] == 2
    assert origin_of(ours).open == 1
