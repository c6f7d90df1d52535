"""Start, stop, reload, and being killed at any moment: nothing is lost and nothing stays behind."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from .conftest import (
    LONG_WAIT_SECONDS,
    PYTHON_MODULE,
    ROOT,
    Server,
    SharedServers,
    clean_environment,
    is_dead,
    wait_until,
)


@pytest.fixture(scope="module")
def made_instance(shared_servers: SharedServers) -> Path:
    """An instance folder as the first start of a server makes it, which takes longer than all the rest of a start."""
    server = shared_servers.start({}).wait_ready()
    assert server.stop() == 0
    return shared_servers.servers.folder / "instance"


@pytest.fixture(autouse=True)
def _instance(made_instance: Path, tmp_path: Path) -> None:
    """A copy for each test, with the owner of the files: PostgreSQL runs as another user than root."""
    subprocess.run(["cp", "-a", str(made_instance), str(tmp_path / "instance")], check=True, timeout=LONG_WAIT_SECONDS)


def postgres_processes(instance: Path) -> list[psutil.Process]:
    """The postmaster of `instance` and its children."""
    try:
        postmaster = psutil.Process(int((instance / "postgres" / "postmaster.pid").read_text().split()[0]))
        return [postmaster, *postmaster.children()]
    except (FileNotFoundError, psutil.NoSuchProcess):
        return []


def flask(instance: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYTHON_MODULE, "flask", "--app", "app", *arguments],
        cwd=ROOT,
        env={**clean_environment(), "INSTANCE_PATH": str(instance)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
    )


def make_token(instance: Path) -> str:
    created = flask(instance, "user", "create", "ann@example.org", "--password-stdin", stdin="correct horse battery")
    assert created.returncode == 0, created.stderr
    return flask(instance, "token", "create", "ann@example.org").stdout.strip()


def board_slugs(server: Server, token: str) -> list[str]:
    answer = requests.get(server.url + "/api/boards", headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return [board["slug"] for board in answer.json()]


def make_board(server: Server, token: str, slug: str) -> None:
    board = {
        "slug": slug,
        "title": slug,
        "public": False,
        "sources": [{"name": "one", "url": server.url + "/demo/delay/10", "timeout_ms": 1000}],
    }
    answer = requests.post(
        server.url + "/api/boards", json=board, headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert answer.status_code == 201, answer.text


def test_a_stop_answers_the_requests_that_run_and_leaves_no_process(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start().wait_ready()
    family = [*psutil.Process(server.process.pid).children(recursive=True), *postgres_processes(tmp_path / "instance")]

    with ThreadPoolExecutor(10) as pool:
        answers = [pool.submit(requests.get, server.url + "/demo/delay/1500", timeout=30) for _ in range(10)]
        wait_until(lambda: open_connections(server) >= 10, "all requests are being answered")
        exit_code = server.stop()

    assert [answer.result().json() for answer in answers] == [{"delay_ms": 1500}] * 10
    assert exit_code == 0
    wait_until(lambda: all(map(is_dead, family)), "every process of the server is gone")


def open_connections(server: Server) -> int:
    """Connections that the server's workers hold with clients."""
    return sum(
        connection.status == psutil.CONN_ESTABLISHED
        for worker in server.workers()
        for connection in worker.net_connections("tcp")
        if connection.laddr.port == server.port
    )


def test_a_killed_worker_is_replaced_and_the_others_serve_on(start: Callable[..., Server]) -> None:
    server = start({"WEB_CONCURRENCY": "2"}).wait_ready()
    wait_until(lambda: len(server.workers()) == 2, "both workers run")
    victim, survivor = server.workers()

    victim.kill()
    wait_until(lambda: is_dead(victim), "the worker is dead")

    assert requests.get(server.url + "/demo/delay/1", timeout=30).status_code == 200
    wait_until(lambda: len([w for w in server.workers() if w.pid != victim.pid]) == 2, "a new worker runs")
    assert not is_dead(survivor)


def test_killing_the_arbiter_takes_everything_with_it_and_loses_nothing(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    instance = tmp_path / "instance"
    server = start().wait_ready()
    token = make_token(instance)
    make_board(server, token, "kept")
    family = [*psutil.Process(server.process.pid).children(recursive=True), *postgres_processes(instance)]

    server.signal(signal.SIGKILL)
    server.wait_gone()

    wait_until(lambda: all(map(is_dead, family)), "workers, companion and database are gone")
    assert "Exception ignored" not in server.text()
    again = start().wait_ready()
    assert board_slugs(again, token) == ["demo", "kept"]


def test_the_database_is_found_again_after_everything_was_killed(start: Callable[..., Server], tmp_path: Path) -> None:
    instance = tmp_path / "instance"
    server = start().wait_ready()
    token = make_token(instance)
    make_board(server, token, "kept")

    victims = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    for process in [*victims, *postgres_processes(instance)]:
        process.kill()
    server.wait_gone()

    again = start().wait_ready()
    assert board_slugs(again, token) == ["demo", "kept"]


def test_flask_commands_share_the_database_with_the_server(start: Callable[..., Server], tmp_path: Path) -> None:
    instance = tmp_path / "instance"
    server = start().wait_ready()

    token = make_token(instance)  # two commands beside the server
    make_board(server, token, "mine")
    assert server.stop() == 0
    listed = flask(instance, "board", "fetch", "demo")  # and one without it

    assert listed.returncode == 0, listed.stderr
    wait_until(lambda: not postgres_processes(instance), "the last one to leave stopped the database")


def test_a_reload_replaces_the_workers_without_losing_a_request(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start({"WEB_CONCURRENCY": "2"}).wait_ready()
    wait_until(lambda: len(server.workers()) == 2, "both workers run")
    before = {worker.pid for worker in server.workers()}
    database = {process.pid for process in postgres_processes(tmp_path / "instance")[:1]}

    def replaced() -> bool:
        # A fresh connection each time: an old worker may close its idle ones when it leaves.
        assert requests.get(server.url + "/healthz", timeout=30).status_code == 200
        now = {worker.pid for worker in server.workers()}
        return len(now) == 2 and not now & before

    server.signal(signal.SIGHUP)
    wait_until(replaced, f"two new workers run:\n{server.text()}")

    assert requests.get(server.url + "/readyz", timeout=30).json() == {"status": "ready"}
    assert {process.pid for process in postgres_processes(tmp_path / "instance")[:1]} == database


def test_a_reload_with_wrong_settings_changes_nothing(start: Callable[..., Server], tmp_path: Path) -> None:
    """The settings are wrong in .env, which a reload reads again; the server runs in a copy of the project with one."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("app", "greenroom"):
        (project / name).symlink_to(ROOT / name)
    (project / "gunicorn.conf.py").write_text((ROOT / "gunicorn.conf.py").read_text())
    command = (*PYTHON_MODULE, "gunicorn", "--chdir", str(project), "-c", str(project / "gunicorn.conf.py"))
    server = start({"WEB_CONCURRENCY": "1"}, command).wait_ready()
    before = [worker.pid for worker in server.workers()]

    (project / ".env").write_text("GREENROOM_BACKLOG=plenty\n")
    server.signal(signal.SIGHUP)
    wait_until(lambda: "reload given up" in server.text(), "the reload is refused")
    server.signal(signal.SIGUSR1)  # handled after the reload is over
    wait_until(lambda: "Handling signal: usr1" in server.text(), "the reload is over")

    assert "GREENROOM_BACKLOG must be a whole number" in server.text()
    assert [worker.pid for worker in server.workers()] == before
    assert requests.get(server.url + "/readyz", timeout=30).status_code == 200


def test_a_reload_with_code_that_can_not_be_prepared_changes_nothing(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "app", project / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "greenroom").symlink_to(ROOT / "greenroom")
    (project / "gunicorn.conf.py").write_text((ROOT / "gunicorn.conf.py").read_text())
    command = (*PYTHON_MODULE, "gunicorn", "--chdir", str(project), "-c", str(project / "gunicorn.conf.py"))
    server = start({"WEB_CONCURRENCY": "1"}, command).wait_ready()
    before = [worker.pid for worker in server.workers()]

    (project / "app" / "boards.py").write_text("this is no Python\n")
    server.signal(signal.SIGHUP)
    wait_until(lambda: "reload given up" in server.text(), "the reload is refused")
    server.signal(signal.SIGUSR1)
    wait_until(lambda: "Handling signal: usr1" in server.text(), "the reload is over")

    assert [worker.pid for worker in server.workers()] == before
    assert requests.get(server.url + "/readyz", timeout=30).status_code == 200


def test_the_companion_dying_stops_no_request(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start().wait_ready()
    children = psutil.Process(server.process.pid).children()
    companion = next(child for child in children if "devdb.prepare" in " ".join(child.cmdline()))

    companion.send_signal(signal.SIGKILL)
    wait_until(lambda: is_dead(companion), "it is dead")

    assert requests.get(server.url + "/readyz", timeout=30).json() == {"status": "ready"}
    assert server.stop() == 0
    wait_until(lambda: not postgres_processes(tmp_path / "instance"), "the database is stopped")


def test_ctrl_c_in_the_terminal_stops_cleanly(start: Callable[..., Server], tmp_path: Path) -> None:
    """The terminal sends SIGINT to its whole foreground group; the database must be stopped after the workers."""
    launcher = "import os, sys; os.setpgid(0, 0); os.execv(sys.executable, [sys.executable, '-m', 'gunicorn'])"
    server = start(None, (PYTHON_MODULE[0], "-c", launcher)).wait_ready()

    os.killpg(server.process.pid, signal.SIGINT)

    assert server.wait_gone() == 0
    wait_until(lambda: not postgres_processes(tmp_path / "instance"), "the database is stopped")
