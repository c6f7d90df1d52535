"""A source may name public addresses only, and its connections are kept: under every server, with plain `requests`."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

from tests.app.api.upstreams import Connection, Upstream, answering, dribbling, redirecting, upstream

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, Server, free_port, wait_until

APP = "tests.live.apps.sources:app"
COMMANDS: dict[str, Sequence[str]] = {
    "flask run": ("flask", "--app", "tests/live/apps/sources.py", "run", "--port", "{port}"),
    "gthread": (
        "gunicorn", "-c", "python:gunicorn.config", "-k", "gthread", "--threads", "16", "-b", "127.0.0.1:{port}",
        "--no-control-socket", APP,
    ),
    "greenroom": ("greenroom", "serve", APP, "--workers", "1"),
}  # fmt: skip
NOT_PUBLIC = (
    "http://127.0.0.2:{port}/",
    "http://127.2:{port}/",
    "http://2130706434:{port}/",
    "http://0x7f000002:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::ffff:127.0.0.2]:{port}/",
    "http://[::1]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
)


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    command = [*PYTHON_MODULE, *(part.format(port=port) for part in COMMANDS[request.param])]
    environ = {"GREENROOM_BIND": f"127.0.0.1:{port}", "GREENROOM_OPS_BIND": "off", "PYTHONPATH": "."}
    running = Server(command, environ, tmp_path_factory.mktemp("sources") / "server.log", port).wait_ready("/")
    running.name = request.param  # type: ignore[attr-defined]
    yield running
    running.stop()
    print(running.text())


@pytest.fixture
def inside() -> Iterator[Upstream]:
    """An upstream that no source may reach."""
    with upstream(answering(b'"secret"'), host="127.0.0.2") as running:
        yield running


def fetch(server: Server, *urls: str, **settings: Any) -> dict[str, Any]:
    answer = requests.get(f"{server.url}/fetch", params={"url": urls, **settings}, timeout=LONG_WAIT_SECONDS)
    return dict(answer.json())


def test_private_addresses_are_refused_in_any_writing(server: Server, inside: Upstream) -> None:
    urls = [url.format(port=inside.port) for url in NOT_PUBLIC]
    outcomes = fetch(server, *urls)

    assert [outcomes[url].get("error", "") for url in urls if "is not a public" not in outcomes[url]["error"]] == []
    assert inside.connections == 0


def test_a_redirect_is_checked_as_well(server: Server, inside: Upstream) -> None:
    with upstream(redirecting(inside.url())) as outside:
        assert fetch(server, outside.url())[outside.url()]["error"] == "127.0.0.2 is not a public address"

    assert inside.connections == 0


def test_a_name_that_changes_its_address_gains_nothing(server: Server) -> None:
    with upstream(answering(b'"outside"', Connection="close")) as outside:
        with upstream(answering(b'"inside"'), host="127.0.0.2", port=outside.port) as inside:
            url = outside.url(host="changes.test")
            first, second = (fetch(server, url)[url] for _ in range(2))

    assert first["body"] == "outside"
    assert second["error"] == "changes.test is not a public address"
    assert inside.connections == 0


def test_a_connection_that_was_kept_for_others_is_not_used(server: Server, inside: Upstream) -> None:
    """Under Greenroom, sessions share connections: a source must not get one that was made without a check."""
    assert requests.get(f"{server.url}/unchecked", params={"url": inside.url()}, timeout=LONG_WAIT_SECONDS).ok

    assert fetch(server, inside.url())[inside.url()]["error"] == "127.0.0.2 is not a public address"
    assert len(inside.heads) == 1


def test_connections_are_kept(server: Server) -> None:
    with upstream(answering()) as outside:
        outcomes = [fetch(server, outside.url())[outside.url()] for _ in range(5)]
        pools = requests.get(f"{server.url}/pools", timeout=LONG_WAIT_SECONDS).json()

    assert [outcome["status"] for outcome in outcomes] == [200] * 5
    assert outside.connections == 1
    assert pools["kept"] > 0
    # Under Greenroom they are in its pool, under all others in those of requests.
    assert pools["own"] == (0 if server.name == "greenroom" else pools["kept"])  # type: ignore[attr-defined]


def test_a_source_that_dribbles_its_head_is_cut_off(server: Server) -> None:
    """On a kept connection, too."""
    is_cut = []

    def behave(connection: Connection) -> None:
        connection.read_head()
        connection.answer()
        try:
            dribbling(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"1")(connection)
        except OSError:
            is_cut.append(True)

    with upstream(behave) as outside:
        first = fetch(server, outside.url())[outside.url()]
        second = fetch(server, outside.url(), timeout_ms=300)[outside.url()]
        wait_until(lambda: is_cut, "the connection is cut")

    assert first["status"] == 200
    assert second["error"] == "no answer within 300 ms"
    assert outside.connections == 1


def test_many_sources_are_asked_at_once(server: Server) -> None:
    waiting: list[Connection] = []

    def together(connection: Connection) -> None:
        connection.read_head()
        waiting.append(connection)
        wait_until(lambda: len(waiting) >= 20, "twenty are here")
        connection.answer()

    with upstream(together) as outside:
        outcomes = fetch(server, *(outside.url(f"/{number}") for number in range(20)))

    assert [outcome["status"] for outcome in outcomes.values()] == [200] * 20
