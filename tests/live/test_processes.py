"""multiprocessing and subprocess under the worker: they do what they do anywhere, and hold up nobody."""

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
import requests

from .conftest import Server, wait_until

# The loop of a busy machine may stand still for a moment; a wait that blocks it takes as long as the wait.
LONGEST_PING_SECONDS = 1.5


APP = {"WSGI_APP": "tests.live.apps.processes:app", "WEB_CONCURRENCY": "1", "GREENROOM_COMPANION": "no"}


@pytest.fixture
def start_processes(start: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    def run(**environ: str) -> Server:
        return start({**APP, "FORKS_FOLDER": str(tmp_path), **environ})

    return run


@pytest.fixture
def server(start_processes: Callable[..., Server]) -> Iterator[Server]:
    """A server that has done nothing yet."""
    server = start_processes().wait_ready()
    yield server
    assert "Traceback" not in server.text(), server.text()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture
def shared_server(share: Callable[..., Server], shared_folder: Path) -> Iterator[Server]:
    """One for all ways to start a process, each of which leaves it as it was."""
    server = share({**APP, "FORKS_FOLDER": str(shared_folder)}).wait_ready()
    yield server
    assert "Traceback" not in server.text(), server.text()


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/pool/fork", "[1,2]"),
        ("/pool/spawn", "[1,2]"),
        ("/pool/forkserver", "[1,2]"),
        ("/manager", '{"by":"child"}'),
        ("/pipe", "800000"),
        ("/queues/SimpleQueue/fork", "put"),
        ("/queues/SimpleQueue/spawn", "put"),
        ("/queues/Queue/fork", "put"),
        ("/queues/JoinableQueue/spawn", "put"),
        ("/semaphores", "[false,false,true,true]"),
        ("/executor", "[0,1,4,9]"),
        ("/three-at-once", "[3,4,5]"),
        ("/preexec", "/"),
        ("/talks", "ONE TWO"),
        ("/timeout?s=0.3", "too late: True"),
        ("/closes", f"said {errno.EBADF}"),
        ("/way/system", "3"),
        ("/way/popen", "said"),
        ("/way/spawn", "3"),
        ("/way/waitpid", "3"),
        ("/way/waitid", "3"),
        ("/way/wait4", "3"),
        ("/way/wait4-forked", "3"),
        ("/way/multiprocessing-spawn", "0"),
        ("/way/multiprocess", "[False, True, 'put', 0, 1, 4]"),
        ("/way/pipe", "300000"),
        ("/way/pipe-file", "50000"),
        ("/way/pipe-not-blocking", "would block"),
        ("/way/terminal", "said0"),
        ("/way/file-locks", "locked"),
        ("/way/gevent.subprocess", "said"),
        ("/way/asyncio", "said 0"),
        ("/way/real-thread", "3"),
    ],
)
def test_it_works_from_a_view_and_others_are_served_meanwhile(shared_server: Server, path: str, answer: str) -> None:
    assert asked_while_others_are_served(shared_server, path) == (200, answer)


@pytest.mark.parametrize("path", ["/way/wait", "/way/wait3"])
def test_whichever_child_ends_first_is_waited_for(server: Server, path: str) -> None:
    """On a server of its own, which has no other children."""
    assert asked_while_others_are_served(server, path) == (200, "3")


def asked_while_others_are_served(server: Server, path: str) -> tuple[int, str]:
    """The answer, once no other request has waited for it."""
    longest, is_done = [0.0], Event()

    def ping() -> None:
        with requests.Session() as session:
            while not is_done.is_set():
                began = time.monotonic()
                session.get(server.url + "/readyz", timeout=30)
                longest.append(time.monotonic() - began)

    pinging = Thread(target=ping)
    pinging.start()
    try:
        said = requests.get(server.url + path, timeout=30)
    finally:
        is_done.set()
        pinging.join()

    assert max(longest) < LONGEST_PING_SECONDS
    return said.status_code, said.text.strip()


def test_starting_a_program_runs_no_python_of_the_applications(server: Server, tmp_path: Path) -> None:
    """An agent's at-fork hook in it made three `subprocess.run` at once a fork bomb."""
    requests.get(server.url + "/three-at-once", timeout=30)
    assert lines(tmp_path / "hooks") == []

    requests.get(server.url + "/preexec", timeout=30)
    assert len(lines(tmp_path / "hooks")) == 1  # Python is asked for there


def test_pool_manager_and_queue_of_the_import_work_in_views(start_processes: Callable[..., Server]) -> None:
    server = start_processes(PROCESSES_AT_IMPORT="yes").wait_ready()

    said = requests.get(server.url + "/pool-of-import", timeout=30).json()

    assert said == [[0, 1, 4, 9], {"at": "import"}]


def test_logger_with_a_queue_and_a_thread_writes_every_line(server: Server, tmp_path: Path) -> None:
    requests.get(server.url + "/log", timeout=30)

    wait_until(lambda: len(lines(tmp_path / "log")) == 51, "all lines are written")
    assert lines(tmp_path / "log") == ["imported", *(f"line {number}" for number in range(50))]


def test_worker_that_hangs_in_its_import_is_named_with_its_line_and_killed(
    start_processes: Callable[..., Server],
) -> None:
    server = start_processes(HANGS_AT_IMPORT="yes", GREENROOM_TIMEOUT_SECONDS="3")

    wait_until(lambda: "WORKER TIMEOUT" in server.text(), "the arbiter gives the worker up")
    wait_until(lambda: server.text().count("Booting worker") >= 2, "another one is started")

    line = next(
        number
        for number, text in enumerate(Path("tests/live/apps/processes.py").read_text().splitlines(), 1)
        if "os.read(os.pipe()" in text
    )
    assert f"processes.py:{line}" in server.text()
    assert "imports the application" in server.text()
