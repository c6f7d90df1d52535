"""Applications that are not ours: found, served, and left alone."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from .conftest import PYTHON_MODULE, ROOT, Server, wait_until

APPS = Path(__file__).parent / "apps"
SHOP = {"PYTHONPATH": str(APPS / "shop")}
PROBE = {"PYTHONPATH": str(APPS), "WSGI_APP": "probe:app", "WEB_CONCURRENCY": "1"}
SERVE = (*PYTHON_MODULE, "greenroom", "serve", "--pywsgi")


@pytest.mark.parametrize("wsgi_app", ["app:app", "app:create_app()"])
@pytest.mark.parametrize("command", [(*PYTHON_MODULE, "gunicorn"), SERVE], ids=["gunicorn", "serve"])
def test_an_application_whose_package_is_called_app_is_served_and_ours_is_not_imported(
    start: Callable[..., Server], wsgi_app: str, command: tuple[str, ...]
) -> None:
    server = start({**SHOP, "WSGI_APP": wsgi_app}, command).wait_ready("/")

    seen = requests.get(server.url, timeout=10).json()

    assert seen["shop"]
    assert Path(seen["file"]).parent == APPS / "shop" / "app"
    assert seen["app_modules"] == ["app"]


def test_an_application_of_another_name_gets_no_companion(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start(PROBE).wait_ready("/seen")

    assert not (tmp_path / "instance").exists()
    assert len(server.workers()) == 1


def test_requests_that_sleep_wait_together(start: Callable[..., Server]) -> None:
    server = start(PROBE).wait_ready("/seen")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: requests.get(server.url + "/sleep/3000", timeout=30), range(20)))

    assert requests.get(server.url + "/seen", timeout=10).json()["most_waiting"] == 20


def test_requests_that_query_postgres_wait_together(start: Callable[..., Server], postgres_url: str) -> None:
    server = start({**PROBE, "PROBE_DATABASE_URL": postgres_url}).wait_ready("/seen")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: requests.get(server.url + "/query/3000", timeout=30), range(20)))

    assert requests.get(server.url + "/seen", timeout=10).json()["most_waiting"] == 20


def test_without_the_wait_callback_a_query_stops_its_worker(start: Callable[..., Server], postgres_url: str) -> None:
    """The counter-proof: the two tests above would pass on any threaded server."""
    switched_off = {"GREENROOM_PATCH_PSYCOPG2": "no", "PROBE_DATABASE_URL": postgres_url}
    server = start({**PROBE, **switched_off}).wait_ready("/seen")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: requests.get(server.url + "/query/200", timeout=30), range(4)))

    assert requests.get(server.url + "/seen", timeout=10).json()["most_waiting"] == 1


def test_an_application_that_is_not_there_is_named(start: Callable[..., Server]) -> None:
    server = start({"WSGI_APP": "no_such_shop:app"}, SERVE)

    assert server.wait_gone() == 2
    assert "there is no module no_such_shop; is PYTHONPATH right?" in server.text()


def test_a_unix_socket_is_served(start: Callable[..., Server], tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = start({**PROBE, "GREENROOM_BIND": f"unix:{path}"}, SERVE)
    wait_until(path.is_socket, f"the socket appears:\n{server.text()}")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(b"GET /seen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = client.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_the_project_has_no_app_of_its_own_in_the_way() -> None:
    assert (ROOT / "app" / "__init__.py").exists(), "the tests above prove something only while our own `app` lies here"
