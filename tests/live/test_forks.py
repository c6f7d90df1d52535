"""Processes that an application forks from a worker do their own work, and nothing of the worker's."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from .conftest import Server, wait_until

# A stop that waited for a child would not end: its own bound is far beyond that of the tests.
PATIENT = {"GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "3600"}


APP = {"WSGI_APP": "tests.live.apps.forks:app", "WEB_CONCURRENCY": "1", "GREENROOM_COMPANION": "no"}


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "forks"
    folder.mkdir()
    return folder


@pytest.fixture
def start_forks(start: Callable[..., Server], own_folder: Path) -> Callable[..., Server]:
    def run(**environ: str) -> Server:
        return start({**APP, "FORKS_FOLDER": str(own_folder), **environ})

    return run


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forks")


@pytest.fixture
def folder(shared_folder: Path) -> Path:
    """The folder of the shared server, empty."""
    for file in shared_folder.iterdir():
        file.unlink()
    return shared_folder


@pytest.fixture
def server(share: Callable[..., Server], folder: Path) -> Iterator[Server]:
    server = share({**APP, "FORKS_FOLDER": str(folder)}).wait_ready()
    yield server
    text = server.text()
    assert "Traceback" not in text.replace("RuntimeError: of the child", ""), text


def get(server: Server, path: str) -> str:
    answer = requests.get(server.url + path, timeout=30)
    assert answer.status_code == 200, server.text()
    return answer.text


def lines(folder: Path, name: str) -> list[str]:
    file = folder / name
    return file.read_text().splitlines() if file.exists() else []


@contextmanager
def let_go_at_the_end(folder: Path) -> Iterator[None]:
    """Requests of /slow are in flight for as long."""
    try:
        yield
    finally:
        (folder / "let-go").touch()


@pytest.mark.parametrize(
    ("path", "answer", "noted"),
    [
        ("/everything", "0", "everything"),
        ("/falls-out", "0", "fell-out"),
        ("/exits", "3", "childs-atexit"),
        ("/pty", "in a terminal 0", ""),
        ("/in-thread", "0", "in-thread"),
        ("/in-executor", "0", "in-executor"),
        ("/in-context", "0", "fell-out"),
        ("/methods/spawn", "0", ""),
        ("/methods/forkserver", "0", ""),
        ("/terminated", str(-signal.SIGTERM), ""),
        ("/handles", "9", "handles"),
        ("/holds-lock", "0", ""),
        ("/parents-socket", "WORD 0", ""),
        ("/streams", "before 0", ""),
    ],
)
def test_child_does_what_it_was_forked_for_and_nothing_of_its_parents(
    server: Server, folder: Path, path: str, answer: str, noted: str
) -> None:
    worker = get(server, "/pid")
    with ThreadPoolExecutor(8) as clients, let_go_at_the_end(folder):
        slow = [clients.submit(get, server, f"/slow?n={number}") for number in range(8)]
        wait_until(lambda: len(lines(folder, "slow-begun")) == 8, "they are in flight")
        said = get(server, path)
        pids = Counter(get(server, "/pid") for _ in range(30))

    assert said == answer
    assert pids == {worker: 30}
    assert {future.result() for future in slow} == {worker}
    if noted:
        assert len(lines(folder, noted)) == 1
    mine = sorted(f"{number} {worker}" for number in range(8))
    assert sorted(lines(folder, "slow")) == mine
    assert sorted(lines(folder, "slow-finally")) == mine
    assert set(lines(folder, "waited")) <= {worker}
    assert lines(folder, "parents-atexit") == []


def test_child_waits_spawns_and_forks_like_any_process(server: Server, folder: Path) -> None:
    worker = get(server, "/pid")

    get(server, "/everything")

    assert lines(folder, "everything") == [f"{worker} {worker} {worker} 0 1 said 7 of the child 5"]
    assert lines(folder, "consumed") == []
    assert len(lines(folder, "grandchild")) == 1


def test_error_in_a_child_is_logged_and_the_parent_answers(
    start_forks: Callable[..., Server],
) -> None:
    server = start_forks().wait_ready()

    assert get(server, "/fails") == "0"  # Flask has dealt with it
    assert "RuntimeError: of the child" in server.text()


def test_child_holds_no_client_and_no_listener_open(server: Server, folder: Path) -> None:
    with ThreadPoolExecutor(5) as clients, let_go_at_the_end(folder):
        slow = [clients.submit(get, server, f"/slow?n={number}") for number in range(5)]
        wait_until(lambda: len(lines(folder, "slow-begun")) == 5, "they are in flight")
        get(server, "/descriptors")
    assert all(future.result() for future in slow)

    assert lines(folder, "descriptors") == ["0"]


def test_daemon_neither_delays_the_stop_nor_keeps_the_address(
    start_forks: Callable[..., Server], own_folder: Path
) -> None:
    server = start_forks(**PATIENT).wait_ready()
    get(server, "/daemon")

    server.stop()

    with pytest.raises(requests.ConnectionError):
        requests.get(server.url + "/pid", timeout=2)
    assert lines(own_folder, "daemon") == []
    (own_folder / "let-go").touch()
    wait_until(lambda: lines(own_folder, "daemon"), "the daemon has done its work")


@pytest.mark.parametrize("how", ["exits", "falls through"])
def test_child_of_the_import_is_no_second_server(
    start_forks: Callable[..., Server], own_folder: Path, how: str
) -> None:
    server = start_forks(FORKS_AT_IMPORT=how).wait_ready()
    wait_until(lambda: lines(own_folder, "at-import"), "the child is done")
    [child] = lines(own_folder, "at-import")
    wait_until(lambda: not is_alive(int(child)), "the child is gone")

    assert {get(server, "/pid") for _ in range(30)} == {str(server.workers()[0].pid)}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("daemonic", [True, False])
def test_child_of_multiprocessing_does_not_delay_the_stop(start_forks: Callable[..., Server], daemonic: bool) -> None:
    """Daemonic ones are ended, as multiprocessing does; the others go on."""
    server = start_forks(**PATIENT).wait_ready()
    child = int(get(server, f"/background?daemonic={int(daemonic)}"))

    server.stop()

    assert is_alive(child) != daemonic
    if not daemonic:
        os.kill(child, signal.SIGTERM)
        wait_until(lambda: not is_alive(child), "the child does as it is told")
