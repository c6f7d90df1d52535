"""deploy/ as a whole: the drill in both kinds of network, and what the systemd units start where systemd can't."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import requests

from deploy.drill.parts import environment

from .conftest import LONG_WAIT_SECONDS, ROOT, clean_environment, free_port, wait_until

pytestmark = pytest.mark.nightly
PROGRAMS = ("nginx", "pgbouncer", "redis-server", "openssl")
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
missing = [name for name in PROGRAMS if shutil.which(name, path=SBIN) is None]


@pytest.mark.skipif(bool(missing), reason=f"not here: {', '.join(missing)}")
@pytest.mark.timeout(700)
@pytest.mark.parametrize("options", [(), ("--loopback",)], ids=["namespaces", "loopback"])
def test_reloads_lose_nothing_and_a_lost_host_only_what_it_had_in_flight(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "deploy.drill", *options]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=600)

    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert " 0 of them are missing" in done.stdout


def unit(name: str) -> dict[str, str]:
    lines = (ROOT / "deploy" / name).read_text().splitlines()
    return dict(line.partition("=")[::2] for line in lines if "=" in line and line[0] not in "#;[")


def command_of(name: str, key: str = "ExecStart") -> list[str]:
    """As it stands in the unit, with this checkout for the folder that it is installed in."""
    words = shlex.split(unit(name)[key])
    return [str(Path(sys.executable).parent / Path(words[0]).name) if "/srv/" in words[0] else words[0], *words[1:]]


@pytest.fixture
def run_unit(tmp_path: Path, database_url: str) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], Path]]]:
    """Starts a unit's ExecStart with deploy/production.env, as systemd would."""
    with ExitStack() as stack:

        def run(name: str, **changes: str) -> tuple[subprocess.Popen[bytes], Path]:
            log = tmp_path / f"{name}.log"
            environ = environment(database_url, "", INSTANCE_PATH=str(tmp_path / "instance"), **changes)
            with log.open("wb") as output:
                process = subprocess.Popen(command_of(name), cwd=ROOT, env=environ, stdout=output, stderr=output)

            def end() -> None:
                print(log.read_text(errors="replace"))
                if process.poll() is None:
                    process.kill()
                    process.wait()

            stack.callback(end)
            return process, log

        yield run


def test_server_unit_starts_reloads_and_stops(
    run_unit: Callable[..., tuple[subprocess.Popen[bytes], Path]], tmp_path: Path
) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LONG_WAIT_SECONDS)
        process, _ = run_unit(
            "greenroom.service",
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            GREENROOM_BIND=f"127.0.0.1:{port}",
            GREENROOM_OPS_BIND="off",
            GREENROOM_RECORDINGS_PATH=str(tmp_path / "recordings"),
            WEB_CONCURRENCY="1",
            GREENROOM_COMPANION="no",
        )
        assert systemd.recv(4096).startswith(b"READY=1\n")
    url = f"http://127.0.0.1:{port}/readyz"
    wait_until(lambda: is_ready(url), "the server is ready")
    before = {child.pid for child in psutil.Process(process.pid).children()}

    reload = [word.replace("$MAINPID", str(process.pid)) for word in command_of("greenroom.service", "ExecReload")]
    subprocess.run(reload, check=True, timeout=30)
    wait_until(
        lambda: before.isdisjoint(child.pid for child in psutil.Process(process.pid).children()), "a new worker serves"
    )
    assert is_ready(url)
    process.send_signal(signal.SIGTERM)
    assert process.wait(int(unit("greenroom.service")["TimeoutStopSec"])) == 0


def is_ready(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.parametrize(
    ("name", "says"), [("greenroom-celery.service", "[queues]"), ("greenroom-celery-beat.service", "is starting.")]
)
def test_celery_units_start_and_stop(
    run_unit: Callable[..., tuple[subprocess.Popen[bytes], Path]], tmp_path: Path, name: str, says: str
) -> None:
    process, log = run_unit(name)
    wait_until(lambda: says in log.read_text(errors="replace") or process.poll() is not None, "it is up")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)

    assert process.wait(LONG_WAIT_SECONDS) in (0, -signal.SIGTERM)


def test_every_unit_is_run_here() -> None:
    assert {path.name for path in (ROOT / "deploy").glob("*.service")} == {
        "greenroom.service",
        "greenroom-celery.service",
        "greenroom-celery-beat.service",
    }
