"""`gunicorn -k greenroom.Worker shop:app` with a gunicorn.conf.py of the shop's own: nothing is missing."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from .conftest import PYTHON_MODULE, ROOT, Server, Servers, free_port, wait_until

APPS = Path(__file__).parent / "apps"
# Each hook that gunicorn has writes its name and its process, and calls nothing else.
RECORDING = """
import os
import gunicorn.config

def recorder(name, arity):
    def record(*arguments):
        with open({log!r}, "a") as log:
            log.write(f"{{name}} {{os.getpid()}}\\n")
        if name == "post_fork":
            os.environ["HOOKS"] = "ran"
    if arity == 1:
        return lambda one: record(one)
    if arity == 2:
        return lambda one, two: record(one, two)
    return lambda one, two, three: record(one, two, three)

NAMES = dict(on_starting=1, on_reload=1, when_ready=1, pre_fork=2, post_fork=2, post_worker_init=1, worker_int=1,
             worker_exit=2, nworkers_changed=3, on_exit=1, child_exit=2)
globals().update({{name: recorder(name, arity) for name, arity in NAMES.items()}})
workers = {workers}
"""


class Connections(BaseHTTPRequestHandler):
    """Answers each request with the number of its connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing: the server's log is what counts."""


@pytest.fixture
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Connections)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def alone(tmp_path: Path, servers: Servers, upstream: str) -> Callable[..., Server]:
    """`alone(*options)` runs gunicorn as a team with a configuration does, in its own folder."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "alone.py").write_text((APPS / "alone.py").read_text())

    def run(*options: str, conf: str = "workers = 2\n", **environ: str) -> Server:
        (folder / "gunicorn.conf.py").write_text(conf)
        port = free_port()
        command = [*PYTHON_MODULE, "gunicorn", "-k", "greenroom.Worker", "-b", f"127.0.0.1:{port}", *options]
        settings = {"GREENROOM_OPS_BIND": "off", "ALONE_UPSTREAM": upstream, "PYTHONPATH": str(ROOT), **environ}
        return servers.start([*command, "alone:app"], settings, port, cwd=folder)

    return run


@pytest.fixture
def hooks(tmp_path: Path) -> Callable[[], list[str]]:
    log = tmp_path / "hooks.log"
    log.touch()
    return lambda: [line.split()[0] for line in log.read_text().splitlines()]


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each imports", "preload"])
def test_every_hook_of_the_team_runs_in_its_order(
    alone: Callable[..., Server], hooks: Callable[[], list[str]], tmp_path: Path, preload: list[str]
) -> None:
    server = alone(*preload, conf=RECORDING.format(log=str(tmp_path / "hooks.log"), workers=1)).wait_ready("/")

    assert requests.get(server.url, timeout=10).json()["hooks"] == "ran"
    start = ["nworkers_changed", "on_starting", "when_ready", "pre_fork", "post_fork", "post_worker_init"]
    assert hooks() == start

    server.signal(signal.SIGHUP)
    wait_until(lambda: "child_exit" in hooks(), f"the worker is replaced:\n{server.text()}")
    reload = ["nworkers_changed", "on_reload", "pre_fork", "post_fork", "post_worker_init", "worker_exit", "child_exit"]
    assert hooks()[len(start) :] == reload, "the replacement comes first"

    before = len(hooks())
    server.signal(signal.SIGTTIN)
    wait_until(lambda: "post_worker_init" in hooks()[before:], f"a second worker:\n{server.text()}")
    assert hooks()[before:] == ["nworkers_changed", "pre_fork", "post_fork", "post_worker_init"]

    before = len(hooks())
    assert server.stop() == 0
    assert sorted(hooks()[before:]) == ["child_exit", "child_exit", "on_exit", "worker_exit", "worker_exit"]
    assert hooks()[-1] == "on_exit"


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each imports", "preload"])
def test_what_belongs_to_one_worker_is_not_shared_with_another(
    alone: Callable[..., Server], preload: list[str]
) -> None:
    server = alone(*preload).wait_ready("/")
    arbiter = server.process.pid

    def ask(_: int) -> dict[str, object]:
        answer: dict[str, object] = requests.get(server.url + "/everything", timeout=30).json()
        return answer

    with ThreadPoolExecutor(10) as clients:
        answers = list(clients.map(ask, range(60)))

    assert {answer["coroutine"] for answer in answers} == {7}
    assert {answer["hash"] for answer in answers} == {64}
    assert all(answer["resolved"] and answer["is_offloaded"] and answer["psycopg2_waits"] for answer in answers)
    assert all(str(answer["lock"]).startswith("greenroom") for answer in answers)
    by_worker: dict[object, set[object]] = {}
    for answer in answers:
        by_worker.setdefault(answer["pid"], set()).add(answer["upstream"])
    assert len(by_worker) == 2, server.text()
    first, second = by_worker.values()
    assert not first & second, "a connection to an upstream was used by both"
    imported_in = requests.get(server.url, timeout=10).json()["imported_in"]
    assert (imported_in == arbiter) is bool(preload)
    # A thread that the import has started is the importing process's, as under gunicorn's own workers.
    assert {answer["ticks_here"] for answer in answers} == {not preload}
    assert server.stop() == 0
    assert "Traceback" not in server.text()


def test_a_worker_at_its_limit_serves_until_its_replacement_does(alone: Callable[..., Server]) -> None:
    server = alone("--max-requests", "20", conf="workers = 1\n").wait_ready("/")

    pids: set[int] = set()

    def ask() -> bool:
        pids.add(requests.get(server.url, timeout=30).json()["pid"])
        return len(pids) > 2

    wait_until(ask, f"the worker is replaced twice, and no request fails:\n{server.text()}")
    assert "It serves until its replacement does" in server.text()
    assert server.stop() == 0


def test_a_reload_reads_settings_and_code_and_a_wrong_one_changes_nothing(
    alone: Callable[..., Server], tmp_path: Path
) -> None:
    server = alone(conf="workers = 1\n").wait_ready("/")
    folder = tmp_path / "shop"
    before = requests.get(server.url, timeout=10).json()["pid"]

    for name, wrong, said in [
        (".env", "GREENROOM_BAKLOG=1\n", "did you mean GREENROOM_BACKLOG?"),
        ("gunicorn.conf.py", "workers = = 1\n", "gunicorn's configuration can't be read"),
    ]:
        (folder / name).write_text(wrong)
        server.signal(signal.SIGHUP)
        wait_until(lambda said=said: said in server.text(), f"{said}:\n{server.text()}")  # type: ignore[misc]
        assert requests.get(server.url, timeout=10).json()["pid"] == before
        (folder / name).write_text("" if name == ".env" else "workers = 1\n")

    source = (folder / "alone.py").read_text()
    # Another length: to Python, a source of the same length and second is the one that it has compiled.
    (folder / "alone.py").write_text(source.replace("VERSION = 1", "VERSION = 1 + 1"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: requests.get(server.url, timeout=10).json()["version"] == 2, f"a reload:\n{server.text()}")
    assert server.stop() == 0


def test_the_ops_page_is_there_and_says_where_gunicorn_listens(alone: Callable[..., Server]) -> None:
    ops = free_port()
    server = alone(GREENROOM_OPS_BIND=f"127.0.0.1:{ops}").wait_ready("/")

    wait_until(lambda: f"the page is on http://127.0.0.1:{ops}" in server.text(), "the ops page is announced")
    view = requests.get(f"http://127.0.0.1:{ops}/view", timeout=10).json()

    assert str(server.port) in str(view)
    assert "alone:app" in str(view)


def test_what_the_file_imports_too_early_is_named_with_what_to_do(alone: Callable[..., Server]) -> None:
    server = alone(conf="import requests\n")

    assert server.wait_gone() != 0
    assert "imported by gunicorn.conf.py" in server.text()
    assert "patch_first()" in server.text()
    assert "Traceback" not in server.text()


def test_the_file_can_patch_before_its_own_imports(alone: Callable[..., Server]) -> None:
    conf = "from greenroom.configuration import patch_first\npatch_first()\nimport requests\nworkers = 1\n"
    server = alone(conf=conf).wait_ready("/")

    assert requests.get(server.url + "/everything", timeout=10).json()["psycopg2_waits"]


def test_wrong_settings_end_the_start_all_at_once(alone: Callable[..., Server]) -> None:
    server = alone(GREENROOM_BAKLOG="1", GREENROOM_DNS_THREADS="many")

    assert server.wait_gone() == 2
    assert "GREENROOM_BAKLOG" in server.text()
    assert "GREENROOM_DNS_THREADS" in server.text()
    assert "Traceback" not in server.text()
    assert "Exception ignored" not in server.text()  # by CPython, when it ends


def test_settings_that_come_too_late_for_gunicorn_are_named(alone: Callable[..., Server]) -> None:
    server = alone(GREENROOM_BIND="127.0.0.1:1", GREENROOM_KEEPALIVE_SECONDS="7").wait_ready("/")

    assert "these do not count: GREENROOM_BIND (gunicorn's name is bind)" in server.text()
