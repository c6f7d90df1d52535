"""deploy/ as shipped while something changes: a host, a server that is gone, a certificate; and TLS without nginx."""

import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, Server, clean_environment, free_port, wait_until
from .production import (
    DEPLOY,
    HSTS,
    Load,
    Nginx,
    Site,
    make_certificate,
    needs_nginx,
    needs_openssl,
    production_environment,
    short_folder,
    tls,
)

__all__ = ["short_folder", "tls"]

pytestmark = needs_openssl


@needs_nginx
def test_server_that_is_gone_gives_a_problem_document(tls: tuple[Path, Path], short_folder: Path) -> None:
    socket_path = f"unix:{short_folder}/nobody.sock"
    nginx = Nginx(short_folder, *tls, upstream={"unix:/run/greenroom/greenroom.sock": socket_path})
    try:
        answer = requests.get(f"https://localhost:{nginx.https_port}/", verify=str(tls[0]), timeout=30)
    finally:
        nginx.stop()

    assert answer.status_code == 502
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 502
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["Strict-Transport-Security"] == HSTS


@needs_nginx
def test_hosts_behind_one_nginx_are_restarted_one_after_the_other_and_no_request_is_lost(
    tls: tuple[Path, Path], database_url: str, start: Callable[..., Server], short_folder: Path
) -> None:
    ports = [free_port(), free_port()]
    nginx = Nginx(
        short_folder,
        *tls,
        upstream={
            "server unix:/run/greenroom/greenroom.sock;": "",
            "#least_conn;": "least_conn;",
            "#server 10.0.0.11:8000": f"server 127.0.0.1:{ports[0]}",
            "#server 10.0.0.12:8000": f"server 127.0.0.1:{ports[1]}",
        },
    )

    def start_host(port: int) -> Server:
        server = start(
            production_environment(
                database_url,
                GREENROOM_BIND=f"127.0.0.1:{port}",
                PUBLIC_URL=f"https://localhost:{nginx.https_port}",
                TRUSTED_PROXIES="127.0.0.1",
                WEB_CONCURRENCY="1",
                GREENROOM_COMPANION="no",  # its checks are not the matter here, and it takes seconds to start
            )
        )
        server.url = f"http://127.0.0.1:{port}"
        return server

    try:
        hosts = [start_host(port) for port in ports]
        for host in hosts:
            host.wait_ready()
        site = Site(nginx, hosts[0], tls[0])

        with Load(site, ((("GET", "/sign-in"), 200),)) as load:
            wait_until(lambda: load.count() > 20, "the load runs")
            for index, port in enumerate(ports):
                assert hosts[index].stop() == 0
                hosts[index] = start_host(port).wait_ready()
                # As deploy/README.md says: the next one when nginx uses this one again.
                wait_until(nginx.is_logging(f" upstream 127.0.0.1:{port} "), "nginx uses the host again")
    finally:
        nginx.stop()

    assert load.failures() == []


def test_gunicorn_itself_serves_https_and_nothing_else(
    tls: tuple[Path, Path], database_url: str, start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_tls(start, tls, database_url, monkeypatch)

    # Closed at once: a stop waits for idle connections, up to GREENROOM_KEEPALIVE_SECONDS.
    closed = {"Connection": "close"}
    answer = requests.get(server.url + "/sign-in", headers=closed, allow_redirects=False, timeout=30)

    assert answer.status_code == 200
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert re.search(r"; *Secure(;|$)", answer.headers["Set-Cookie"])
    plain = requests.get(server.url.replace("https://", "http://") + "/healthz", headers=closed, timeout=30)
    assert (plain.status_code, "https" in plain.text) == (400, True)


def test_renewed_certificate_is_served_after_a_reload(
    tls: tuple[Path, Path],
    database_url: str,
    start: Callable[..., Server],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    mine = [Path(shutil.copy(path, tmp_path)) for path in tls]
    server = start_tls(start, (mine[0], mine[1]), database_url, monkeypatch)
    old = served_certificate(server)

    make_certificate(tmp_path)
    server.signal(signal.SIGHUP)
    wait_until(lambda: served_certificate(server) != old, "the new certificate is served")
    # For a moment workers of both kinds serve: the replacements come first.
    new = ssl.PEM_cert_to_DER_cert(mine[0].read_text())
    wait_until(lambda: all(served_certificate(server) == new for _ in range(10)), "nobody serves the old one any more")


def start_tls(
    start: Callable[..., Server], tls: tuple[Path, Path], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Server:
    """gunicorn as in production, with TLS and without a proxy; the clients of this process trust the certificate."""
    port = free_port()
    server = start(
        production_environment(
            database_url,
            GREENROOM_BIND=f"127.0.0.1:{port}",
            GREENROOM_TLS_CERTIFICATE=str(tls[0]),
            GREENROOM_TLS_KEY=str(tls[1]),
            PUBLIC_URL=f"https://localhost:{port}",
            TRUSTED_PROXIES="",
            WEB_CONCURRENCY="1",
        )
    )
    server.url = f"https://localhost:{port}"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls[0]))
    return server.wait_ready()


def served_certificate(server: Server) -> bytes:
    port = int(server.url.rpartition(":")[2])
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=30))


def test_commands_of_the_readme_check_the_settings_and_make_the_tables(database_url: str, tmp_path: Path) -> None:
    settings = tmp_path / "production.env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in production_environment(database_url).items()))
    readme = (DEPLOY / "README.md").read_text()
    (alias,) = re.findall(r"alias with-settings='(.*)'", readme)
    commands = [
        f"{alias} {command}".replace("/etc/greenroom/production.env", str(settings))
        for command in re.findall(r"^ +with-settings (.*)$", readme, re.M)
    ]

    printed = [
        subprocess.run(
            command.replace(".venv/bin/", str(Path(PYTHON_MODULE[0]).parent) + "/").split(),
            cwd=ROOT,
            env=clean_environment(),
            check=True,
            capture_output=True,
            text=True,
            timeout=LONG_WAIT_SECONDS,
        ).stdout
        for command in commands
    ]

    assert len(printed) == 2
    assert printed[0] == "settings are fine\n"


def test_gunicorn_tells_systemd_when_it_is_up(start: Callable[..., Server], short_folder: Path) -> None:
    """Type=notify in greenroom.service waits for this."""
    (short_folder / "plain.py").write_text("def app(environ, start_response):\n    raise AssertionError\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(short_folder / "notify"))
        systemd.settimeout(LONG_WAIT_SECONDS)

        start({"NOTIFY_SOCKET": str(short_folder / "notify"), "WSGI_APP": "plain:app", "PYTHONPATH": str(short_folder)})

        assert systemd.recv(4096).startswith(b"READY=1\n")
