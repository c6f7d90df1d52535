"""What the ops process and its commands show of a real server, in a page, a terminal, a recording and a trace."""

import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from ..conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, clean_environment, free_port, wait_until
from ..staging import TROUBLE, clients, slow_upstream
from .watched import Start, Watched

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as this process and its children may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.nightly  # that its page stays small is in tests/greenroom/ops/test_view.py
@pytest.mark.usefixtures("many_descriptors")
def test_ten_thousand_requests_in_flight_are_a_page_and_no_stall(start: Start) -> None:
    count = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    settings = {"GREENROOM_WORKER_CONNECTIONS": "20000", "GREENROOM_LIMIT_REQUESTS": "20000"}
    watched = Watched(start, **settings, GREENROOM_STALL_THRESHOLD_MILLISECONDS="1000").wait_ready()
    with ExitStack() as open_sockets:
        for _ in range(count):
            client = open_sockets.enter_context(
                socket.create_connection(("127.0.0.1", watched.server.port), timeout=60)
            )
            client.sendall(b"GET /sleep/100000 HTTP/1.1\r\nHost: x\r\n\r\n")

        view = watched.ops.wait_for(lambda view: view["in_flight_states"].get("sleep") == count, "all are counted")
        page = watched.ops.get("/view")
        ticket = watched.ops.get("/everything")
        began = time.monotonic()
        watched.ops.get("/metrics")
        took = time.monotonic() - began

    assert len(page.content) < 300_000
    assert ticket.text.count("trouble.py") >= 50
    assert took < 0.5, "with room for a busy machine; measured on a calm one: 5 ms"
    assert view["stalls"]["top"] == []


def test_without_insight_there_is_what_the_scoreboard_knows(start: Start) -> None:
    watched = Watched(start, GREENROOM_INSIGHT="no").wait_ready()
    for _ in range(10):
        requests.get(watched.server.url + "/", timeout=30)

    view = watched.ops.wait_for(lambda view: view["total"]["requests"] >= 10, "requests are counted")
    with clients(watched.server.url, ("/compute/4000", 1)):
        blocked = watched.ops.wait_for(lambda view: view["verdict"].get("cause") == "blocked", "the block is seen")

    assert view["verdict"]["level"] == "ok"
    assert "Worker 1 is blocked" in blocked["verdict"]["sentence"]
    assert watched.ops.metrics()["greenroom_requests_total"] >= 10


def test_a_request_is_looked_into_while_it_waits(watched: Watched) -> None:
    with clients(watched.server.url, ("/sleep/20000?password=hunter2", 1)):
        view = watched.ops.wait_for(lambda view: view["in_flight"], "the request is seen")
        row = view["in_flight"][0]
        answer = watched.ops.get(f"/request/{row['pid']}/{row['id']}").json()
        ticket = watched.ops.get("/everything").text

    assert (row["route"], row["state"]) == ("/sleep/<int:ms>", "sleep")
    assert any("trouble.py" in call for greenlet in answer["greenlets"] for call in greenlet["stack"])
    assert "trouble.py" in ticket
    assert "/sleep/20000" in ticket
    assert "hunter2" not in json.dumps([view, answer]) + ticket + watched.ops.get("/metrics").text


def test_who_has_no_token_sees_nothing(start: Start) -> None:
    watched = Watched(start, GREENROOM_OPS_TOKEN=TOKEN).wait_ready()
    url = watched.ops.url

    def status(path: str, **headers: str) -> int:
        return requests.get(url + path, headers=headers, timeout=30).status_code

    assert {path: status(path) for path in ("/", "/view", "/metrics", "/events", "/everything", "/request/1/x")} == (
        dict.fromkeys(("/", "/view", "/metrics", "/events", "/everything", "/request/1/x"), 401)
    )
    assert status("/view", Authorization="Bearer wrong") == 401
    assert status("/view", Authorization=f"Bearer {TOKEN}", Host="evil.example") == 421
    assert status("/healthz") == 200
    with requests.Session() as session:
        assert session.post(url + "/login", data={"token": "wrong"}, timeout=30).status_code == 401
        assert session.post(url + "/login", data={"token": TOKEN}, timeout=30).status_code == 200
        assert "Where the time goes" in session.get(url + "/", timeout=30).text
        refused = session.post(url + "/recordings", timeout=30)
        assert refused.status_code == 403
    log = watched.server.text()
    assert "wrong tokens for the ops page" in log
    assert TOKEN not in log
    assert TOKEN not in " ".join(part for one in watched.processes() for part in one.cmdline())


def run_command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYTHON_MODULE, "greenroom", *arguments],
        cwd=ROOT,
        env={**clean_environment(), **environ},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
    )


def test_the_commands_find_the_server_or_say_what_is_wrong(start: Start) -> None:
    watched = Watched(start, GREENROOM_OPS_TOKEN=TOKEN).wait_ready()
    where = {"GREENROOM_OPS_BIND": f"127.0.0.1:{watched.port}", "GREENROOM_OPS_TOKEN": TOKEN}

    stacks = run_command("stacks", **where)
    ops = run_command("ops", "--at", f"127.0.0.1:{watched.port}", GREENROOM_OPS_TOKEN=TOKEN)
    wrong = run_command("stacks", **{**where, "GREENROOM_OPS_TOKEN": TOKEN[::-1]})
    nobody = run_command("ops", GREENROOM_OPS_BIND=f"127.0.0.1:{free_port()}")
    off = run_command("ops", GREENROOM_OPS_BIND="off")
    no_terminal = run_command("top", **where)

    assert (stacks.returncode, ops.returncode) == (0, 0), stacks.stderr + ops.stderr
    assert "Healthy" in stacks.stdout
    assert "main thread" in stacks.stdout
    assert f"http://127.0.0.1:{watched.port}/" in ops.stdout
    assert "is another than the server's" in wrong.stderr
    assert "nothing listens at" in nobody.stderr
    assert "is off" in off.stderr
    assert "needs a terminal" in no_terminal.stderr
    assert [one.returncode for one in (wrong, nobody, off, no_terminal)] == [2, 2, 2, 2]


@contextmanager
def terminal(command: list[str], environ: dict[str, str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**clean_environment(), "TERM": "xterm", "COLUMNS": "120", "LINES": "40", **environ},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_top_shows_the_same_in_a_terminal_and_looks_into_a_request(watched: Watched) -> None:
    command = [*PYTHON_MODULE, "greenroom", "top", "--at", f"127.0.0.1:{watched.port}"]
    shown = ""

    with clients(watched.server.url, ("/sleep/60000", 1)):
        watched.ops.wait_for(lambda view: view["in_flight"], "the request is seen")
        with terminal(command, {}) as (screen, process):

            def reads(words: str) -> Callable[[], bool]:
                def read() -> bool:
                    nonlocal shown
                    if select.select([screen], [], [], 0.1)[0]:
                        shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(screen, 65536).decode(errors="replace"))
                    return words in shown

                return read

            wait_until(reads("/sleep/<int:ms>"), "the request is shown")
            os.write(screen, b"s")
            wait_until(reads("by since"), "sorted by something else")
            os.write(screen, b"\r")
            wait_until(reads("trouble.py"), "its stack is shown")
            os.write(screen, b"\x1b")
            os.write(screen, b"p")
            wait_until(reads("PAUSED"), "it pauses")
            os.write(screen, b"q")
            assert process.wait(LONG_WAIT_SECONDS) == 0


def test_a_spike_is_saved_once_as_a_file_that_a_load_test_can_replay(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    watched = Watched(start, GREENROOM_RECORDINGS_KEPT="5", GREENROOM_RECORDINGS_PATH=str(folder)).wait_ready()
    for _ in range(20):
        requests.get(watched.server.url + "/?password=hunter2", timeout=30)

    requests.get(watched.server.url + "/compute/3000", timeout=60)
    view = watched.ops.wait_for(lambda view: view["recordings"], "the recording is listed")

    (row,) = view["recordings"]
    page = watched.ops.get(f"/recordings/{row['name']}")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'; sandbox")
    block = re.search(r'<script type="application/json" id="arrivals">(.*?)</script>', page.text, re.S)
    assert block
    said = json.loads(block[1])
    assert said["format"] == "greenroom-arrivals/1"
    assert [arrival[1] for arrival in said["arrivals"]].count("/") >= 20
    assert ["/compute/<int:ms>", 200] in [arrival[1:3] for arrival in said["arrivals"]]
    assert "trouble.py:" in page.text, "the stall's line"
    assert "hunter2" not in page.text
    assert watched.ops.get("/recordings/../../etc/passwd").status_code == 404


def test_what_a_killed_worker_remembered_is_in_the_recording(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    watched = Watched(
        start, WEB_CONCURRENCY="1", GREENROOM_RECORDINGS_KEPT="5", GREENROOM_RECORDINGS_PATH=str(folder)
    ).wait_ready()
    for _ in range(20):
        requests.get(watched.server.url + "/", timeout=30)

    watched.ops.wait_for(
        lambda view: sum(route["count"] for route in view["routes"] if route["route"] == "/") >= 20, "they are counted"
    )
    with socket.create_connection(("127.0.0.1", watched.server.port)) as client:
        client.sendall(b"GET /regex/60 HTTP/1.1\r\nHost: example\r\n\r\n")
        view = watched.ops.wait_for(
            lambda view: any(worker["lag_seconds"] > 3.5 for worker in view["workers"]), "the GIL is held"
        )
        os.kill(view["workers"][0]["pid"], signal.SIGKILL)
    view = watched.ops.wait_for(lambda view: view["recordings"], "the recording is listed")

    page = watched.ops.get(f"/recordings/{view['recordings'][0]['name']}").text
    assert "was lost, or could not answer" in page
    block = re.search(r'<script type="application/json" id="arrivals">(.*?)</script>', page, re.S)
    assert block
    assert [arrival[1] for arrival in json.loads(block[1])["arrivals"]].count("/") >= 20


def test_a_trace_goes_into_the_log_and_to_the_upstream(start: Start) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with slow_upstream() as upstream:
        log = {"GREENROOM_ACCESS_LOG": "yes", "GREENROOM_ACCESS_LOG_FORMAT": "json", "GREENROOM_OPS_BIND": "off"}
        server = start({**TROUBLE, **log, "UPSTREAM_URL": upstream}).wait_ready("/")

        requests.get(server.url + "/upstream/1", headers={"traceparent": parent}, timeout=30)

        wait_until(lambda: '"trace_id":"0af7651916cd43dd8448eb211c80319c"' in server.text(), "the log has it")
        assert requests.get(f"{upstream}/traces", timeout=30).json() == [parent]
