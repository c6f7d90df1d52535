"""benchmarks/against.py and saturation.py: is a run dearer than an earlier one, and how many clients fill a server."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import against, installing
from benchmarks.report import SCHEMA
from benchmarks.saturation import Probe, clients_that_fill
from benchmarks.servers import ServerFailed


def a_run(**cpu: tuple[float, float]) -> dict[str, Any]:
    """CPU of a request by route: ours, and the stock worker's."""
    return {
        "schema": SCHEMA,
        "summaries": [
            {"route": route, "server": server, "cpu_microseconds": value or None}
            for route, values in cpu.items()
            for server, value in zip(("greenroom", "gevent"), values, strict=True)
        ],
    }


def test_machine_that_is_slower_makes_nothing_dearer() -> None:
    (change,) = against.changes(a_run(hello=(40, 130)), a_run(hello=(80, 260)))

    assert not change.is_worse
    assert change.sentence() == "hello: CPU of a request 0.308 times gevent before, 0.308 now (+0%)"


def test_dearer_request_is_told() -> None:
    changes = against.changes(a_run(hello=(40, 130), dict=(100, 200)), a_run(hello=(60, 130), dict=(110, 200)))

    assert [(change.route, change.is_worse) for change in changes] == [("hello", True), ("dict", False)]
    assert changes[0].sentence().endswith("(+50%): dearer")


def test_without_the_stock_worker_it_is_our_cpu() -> None:
    (change,) = against.changes(a_run(hello=(40, 0)), a_run(hello=(50, 130)))

    assert (change.is_relative, change.is_worse) == (False, True)
    assert "40 µs before, 50 now" in change.sentence()


def test_only_routes_of_both_runs_are_compared() -> None:
    assert against.changes(a_run(hello=(40, 130)), a_run(dict=(100, 200))) == []


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "another"}', None])
def test_file_that_is_no_run_is_told_in_one_sentence(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "last.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ServerFailed, match=r"^--against .*last\.json"):
        against.read(path)


def test_earlier_run_is_read(tmp_path: Path) -> None:
    path = tmp_path / "last.json"
    path.write_text(json.dumps(a_run(hello=(40, 130))))

    assert against.changes(against.read(path), a_run(hello=(40, 130)))


class Server:
    """Answers `each` requests a second for a client, and `most` at most."""

    def __init__(self, each: float, most: float, full_ratio: float = 1.0) -> None:
        self.each = each
        self.most = most
        self.full_ratio = full_ratio
        self.asked: list[int] = []

    def __call__(self, clients: int) -> Probe:
        self.asked.append(clients)
        rate = min(self.each * clients, self.most)
        return Probe(rate, self.full_ratio * rate / self.most)


def test_server_that_is_full_gets_no_more_clients() -> None:
    server = Server(each=1000, most=5000)

    assert clients_that_fill(64, server) == 64
    assert server.asked == [64]


def test_clients_are_raised_until_the_core_is_full() -> None:
    assert clients_that_fill(200, Server(each=10, most=7000)) == 800


def test_clients_are_not_raised_when_more_bring_no_more() -> None:
    """Something else is the limit: the upstream, the pool, the load generator."""
    server = Server(each=10, most=2000, full_ratio=0.4)

    assert clients_that_fill(200, server) == 200
    assert server.asked == [200, 400]


def test_clients_are_not_raised_when_some_get_no_answer() -> None:
    probes = {200: Probe(2000, 0.4), 400: Probe(4000, 0.8, error_count=1)}

    assert clients_that_fill(200, probes.__getitem__) == 200


def test_clients_have_a_bound() -> None:
    assert clients_that_fill(200, Server(each=1, most=1e9), most=1000) == 800


def test_peers_that_cannot_be_installed_are_told_in_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    with pytest.raises(ServerFailed, match="^the other servers can't be installed: "):
        installing.install_peers(blocked / "venv")
