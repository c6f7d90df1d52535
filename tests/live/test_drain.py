"""A worker that stops answers everybody it can, and at once where nobody waits; beside gunicorn's own gevent worker."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from .conftest import PYTHON_MODULE, ROOT, Server, clean_environment, is_dead, wait_until
from .raw import Client

APP = {"PYTHONPATH": str(Path(__file__).parent / "apps"), "WSGI_APP": "worker:app", "WEB_CONCURRENCY": "1"}
OURS = {**APP, "GREENROOM_WORKER_CLASS": "greenroom"}
STOCK = {**APP, "GREENROOM_WORKER_CLASS": "gevent"}


def fails_on_stock(why: str) -> pytest.MarkDecorator:
    """Run the test on gunicorn's gevent worker too, where it has to fail: at night, since such tests wait in vain."""
    marks = (pytest.mark.nightly, pytest.mark.xfail(strict=True, reason=why))
    stock = pytest.param(STOCK, id="gevent", marks=marks)
    return pytest.mark.parametrize("environ", [pytest.param(OURS, id="greenroom"), stock])


Start = Callable[..., Server]
# A stop that waits for nobody takes one; far from the graceful timeouts here.
MOST_STOP_SECONDS = 15.0


def get_once(port: int, path: str = "/") -> tuple[bytes, bool]:
    with Client(port) as client:
        return client.get(path)


def worker(server: Server) -> psutil.Process:
    return server.workers()[0]


@fails_on_stock("a stop takes graceful_timeout while somebody keeps an idle connection")
def test_a_stop_with_only_idle_connections_is_quick(start: Start, environ: dict[str, str]) -> None:
    server = start({**environ, "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "14", "GREENROOM_KEEPALIVE_SECONDS": "60"})
    server.wait_ready("/")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.port)) for _ in range(5)]
        for client in clients:
            client.get("/")

        began = time.monotonic()
        exit_code = server.stop()
        took = time.monotonic() - began
        were_closed = [client.is_closed() for client in clients]

    assert exit_code == 0
    assert took < 10.0, "as long as gunicorn's worker takes: its graceful timeout"
    assert all(were_closed)


def test_running_requests_are_answered_and_told_to_close(start: Start) -> None:
    server = start(OURS).wait_ready("/")
    with Client(server.port) as client:
        client.send("/sleep/1")
        time.sleep(0.3)
        server.signal(signal.SIGTERM)

        _, is_kept = client.receive()

    assert not is_kept
    assert server.wait_gone() == 0


def test_a_client_under_way_with_its_next_request_gets_an_answer(start: Start) -> None:
    """For longer than the server needs to notice the signal, and less than idle connections are kept."""
    server = start(OURS).wait_ready("/")
    with Client(server.port) as client:
        client.get("/")
        server.signal(signal.SIGTERM)
        time.sleep(0.25)

        body, is_kept = client.get("/draining")

    assert (body, is_kept) == (b"draining", False)


@fails_on_stock("connections that were accepted and not started die with the listener")
def test_connections_that_wait_while_the_loop_is_blocked_are_answered(start: Start, environ: dict[str, str]) -> None:
    server = start(environ).wait_ready("/")
    with ThreadPoolExecutor(21) as pool, Client(server.port) as blocker:
        blocker.send("/block/1.5")
        time.sleep(0.3)
        answers = [pool.submit(get_once, server.port) for _ in range(20)]
        time.sleep(0.3)
        server.signal(signal.SIGTERM)

        bodies = [answer.result() for answer in answers]
        blocker.receive()

    assert len(bodies) == 20


def test_half_a_head_may_be_completed(start: Start) -> None:
    server = start(OURS).wait_ready("/")
    with Client(server.port) as client:
        sock = client.connection.sock
        assert sock is not None
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.2)
        server.signal(signal.SIGTERM)
        time.sleep(1.0)
        sock.sendall(b"\r\n")
        answer = sock.recv(65536)

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer


def test_graceful_timeout_bounds_a_drain(start: Start) -> None:
    server = start({**OURS, "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "2"}).wait_ready("/")
    with Client(server.port) as client:
        client.send("/sleep/60")
        time.sleep(0.3)

        began = time.monotonic()
        server.stop()
        took = time.monotonic() - began
        with pytest.raises(AssertionError, match="503"):
            client.receive()

    assert 1.0 < took < 15.0


def read_stream(server: Server, path: str) -> bytes:
    """Read an event stream whose server is told to stop in its midst; b"<reset>" at the end if it is broken off."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        sock.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"tick" not in answer:
            answer += sock.recv(65_536)
        server.signal(signal.SIGTERM)
        try:
            while data := sock.recv(65_536):
                answer += data
        except ConnectionResetError:
            answer += b"<reset>"
    return answer


def test_an_event_stream_that_asks_sees_the_drain_and_ends(start: Start) -> None:
    server = start({**OURS, "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "3600"}).wait_ready("/")

    answer = read_stream(server, "/events")

    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert server.wait_gone() == 0
    assert "ERROR" not in server.text()


def test_an_event_stream_that_goes_on_is_broken_off_and_nobody_blamed(start: Start) -> None:
    server = start({**OURS, "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "2"}).wait_ready("/")

    answer = read_stream(server, "/endless")

    assert answer.endswith(b"<reset>")
    assert server.wait_gone() == 0
    assert "GET /endless: the worker stops" in server.text()
    assert "Traceback" not in server.text()


@pytest.mark.parametrize("what", ["spawn", "thread"])
def test_what_a_request_left_running_holds_no_stop(start: Start, what: str) -> None:
    server = start({**OURS, "GREENROOM_GRACEFUL_TIMEOUT_SECONDS": "60"}).wait_ready("/")
    with Client(server.port) as client:
        client.get(f"/{what}/3600")

    began = time.monotonic()
    assert server.stop() == 0

    assert time.monotonic() - began < MOST_STOP_SECONDS
    assert "left behind" not in server.text()
    assert "Traceback" not in server.text()


@fails_on_stock("the worker ends at once, with all requests in flight")
def test_greenlet_that_ends_the_process_ends_no_request(start: Start, environ: dict[str, str]) -> None:
    server = start(environ).wait_ready("/")
    first = worker(server)
    with Client(server.port) as slow:
        slow.send("/sleep/3")
        time.sleep(0.5)
        get_once(server.port, "/exit/3")

        assert slow.receive() == (str(first.pid).encode(), False)
    first.wait(20)
    with Client(server.port) as client:
        assert client.get("/")[0] != str(first.pid).encode(), "another worker serves on"
    assert re.search(r"a greenlet started at \S*worker\.py:\d+ ends the process: worker", server.text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_wait_for_nobody(start: Start, number: int) -> None:
    server = start(OURS).wait_ready("/")
    with Client(server.port) as client:
        client.send("/sleep/60")
        time.sleep(0.3)

        began = time.monotonic()
        server.signal(number)
        server.wait_gone()

    assert time.monotonic() - began < 15.0


def test_a_second_sigterm_waits_for_nobody(start: Start) -> None:
    server = start(OURS).wait_ready("/")
    with Client(server.port) as client:
        client.send("/sleep/60")
        time.sleep(0.3)

        began = time.monotonic()
        server.signal(signal.SIGTERM)
        time.sleep(1.0)
        server.signal(signal.SIGTERM)
        server.wait_gone()

    assert time.monotonic() - began < 15.0


def test_during_the_drain_window_new_connections_are_served_and_told(start: Start) -> None:
    server = start({**OURS, "GREENROOM_DRAIN_SECONDS": "2"}).wait_ready("/")
    server.signal(signal.SIGTERM)
    time.sleep(0.8)

    with Client(server.port) as late:
        answer = late.get("/draining")

    assert answer == (b"draining", False)
    assert server.wait_gone() == 0


def test_a_dead_arbiter_takes_its_workers_along(start: Start) -> None:
    server = start(OURS).wait_ready("/")
    orphan = worker(server)

    server.signal(signal.SIGKILL)

    wait_until(lambda: is_dead(orphan), "the worker is gone", 10)


def test_usr1_reopens_the_logs_and_serves_on(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    server = start(OURS, (*PYTHON_MODULE, "gunicorn", "--error-logfile", str(log))).wait_ready("/")
    log.rename(tmp_path / "old.log")

    server.signal(signal.SIGUSR1)
    wait_until(log.exists, "the log is made anew")
    with Client(server.port) as client:
        client.get("/")
    server.stop()

    assert "Worker exiting" in log.read_text()


def test_ttin_and_ttou_change_the_number_of_workers(start: Start) -> None:
    server = start(OURS).wait_ready("/")
    first = worker(server).pid

    server.signal(signal.SIGTTIN)
    wait_until(lambda: len(server.workers()) == 2, "another worker")
    time.sleep(1.0)
    server.signal(signal.SIGTTOU)
    wait_until(lambda: len(server.workers()) == 1, "one of them has gone")

    assert worker(server).pid != first, "the oldest goes"
    with Client(server.port) as client:
        client.get("/")


def test_reload_on_change_starts_a_worker_with_the_new_code(start: Start, tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    code = "def app(environ, start):\n    start('200 OK', [('Content-Length', '3')])\n    return [b'{}']\n"
    module.write_text(code.format("old"))
    environ = {**OURS, "WSGI_APP": "changing:app", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    server = start(environ, (*PYTHON_MODULE, "gunicorn", "--reload", "--reload-engine", "poll")).wait_ready("/")
    time.sleep(1.5)  # the poller has seen the old file

    module.write_text(code.format("new"))
    os.utime(module, (time.time() + 5, time.time() + 5))

    def answer() -> bytes:
        with Client(server.port) as client:
            return client.get("/")[0]

    wait_until(lambda: answer() == b"new", "the new code answers")


@pytest.mark.parametrize("command", [(str(Path(sys.executable).parent / "gunicorn"),), (*PYTHON_MODULE, "gunicorn")])
def test_usr2_starts_a_second_server_on_the_same_socket(start: Start, command: tuple[str, ...]) -> None:
    server = start(OURS, command).wait_ready("/")
    arbiter = psutil.Process(server.process.pid)

    def second() -> list[psutil.Process]:
        return [child for child in arbiter.children() if child.children()]

    server.signal(signal.SIGUSR2)
    wait_until(second, "a second arbiter has a worker")
    new = second()[0]
    server.stop()
    try:
        with Client(server.port) as client:
            served_by = int(client.get("/")[0])
        assert psutil.Process(served_by).ppid() == new.pid
    finally:
        new.terminate()
        wait_until(lambda: is_dead(new), "the second one has gone")


# As systemd does it: the socket is descriptor 3, and the process is told that it is for it.
LAUNCHER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "gunicorn"])
"""


def test_a_socket_from_systemd_is_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, (tmp_path / "systemd.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(listener.fileno())],
            cwd=ROOT,
            env={**clean_environment(), **OURS},
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
        )
        try:
            with Client(listener.getsockname()[1]) as client:  # the answer comes once a worker runs
                body, _ = client.get("/")
        finally:
            process.terminate()
            exit_code = process.wait(30)

    assert body.isdigit()
    assert exit_code == 0
