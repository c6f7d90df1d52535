"""Other hosts' verdicts: the worst first, and one that is silent is a row that says so."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from greenroom.errors import SettingsError
from greenroom.ops.peers import Peers, addresses
from greenroom.settings import Settings

from .test_web import Served

HEALTHY = {
    "level": "ok",
    "cause": "healthy",
    "sentence": "Healthy.",
    "requests_rate": 3.0,
    "workers_serving": 2,
    "workers": 2,
}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def test_the_worst_host_comes_first(pool: ThreadPoolExecutor) -> None:
    def ask(address: tuple[str, int], token: str) -> dict[str, Any]:
        assert token == "t"
        if address[0] == "web-3":
            raise ConnectionRefusedError(111, "Connection refused")
        if address[0] == "web-2":
            return {**HEALTHY, "level": "watch", "cause": "pool", "sentence": "The pool is short."}
        return HEALTHY

    peers = Peers(["web-1:8001", "web-2:8001", "web-3:8001"], "t", ask=ask)
    peers.look(pool)

    assert [(row["host"], row["level"]) for row in peers.rows] == [
        ("web-3:8001", "bad"),
        ("web-2:8001", "watch"),
        ("web-1:8001", "ok"),
    ]
    assert "does not answer" in peers.rows[0]["sentence"]
    assert peers.rows[0]["url"] == "http://web-3:8001/"


def test_hosts_are_read_from_files_and_names(tmp_path: Path) -> None:
    listed = tmp_path / "peers"
    listed.write_text("web-1:8001\n# web-9:8001\n\nweb-2:8001\n")

    assert addresses([f"file:{listed}", "web-1:8001", "dns:127.0.0.1:9001"]) == [
        ("web-1", 8001),
        ("web-2", 8001),
        ("127.0.0.1", 9001),
    ]


def test_a_file_that_is_gone_is_a_row(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    peers = Peers([f"file:{tmp_path}/none", "web-1:8001"], "", ask=lambda *_: HEALTHY)
    peers.look(pool)

    assert [row["level"] for row in peers.rows] == ["bad", "ok"]
    assert "can't be looked up" in peers.rows[0]["sentence"]


def test_a_real_page_that_is_no_view_or_wants_a_token_is_said_to_be(pool: ThreadPoolExecutor) -> None:
    served = Served(token="0123456789abcdef0123456789abcdef")
    try:
        peer = f"127.0.0.1:{served.port}"
        wrong, right = Peers([peer], "x"), Peers([peer], "0123456789abcdef0123456789abcdef")
        wrong.look(pool)
        right.look(pool)
        served.board.publish(
            b'{"verdict": {"level": "ok", "cause": "healthy", "sentence": "Healthy."},'
            b' "total": {"requests_rate": 1.5, "workers_serving": 2, "workers": 2}}',
            b"",
        )
        assert "another GREENROOM_OPS_TOKEN" in wrong.rows[0]["sentence"]
        assert right.rows[0]["level"] == "bad"
        right.look(pool)
        assert (right.rows[0]["level"], right.rows[0]["sentence"]) == ("ok", "Healthy.")
    finally:
        served.web.shutdown()
        served.web.server_close()


def test_wrong_names_are_refused_at_start() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read({"GREENROOM_OPS_PEERS": "web-1, file:peers, dns:web:8001, [::1]:8001"})

    assert caught.value.problems == (
        "GREENROOM_OPS_PEERS must be host:port, dns:name:port or file:/path (got 'web-1')",
        "GREENROOM_OPS_PEERS must name a file by its whole path (got 'file:peers')",
    )
