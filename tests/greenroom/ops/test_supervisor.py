"""The ops process is started again when it dies, later each time; its trouble is never the server's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greenroom.ops import supervisor as keeper_module
from greenroom.ops.supervisor import HEALTHY_SECONDS, PACKAGE_PARENT, Supervisor, Wanted
from greenroom.settings import Settings

from ..conftest import ManualClock

TOKEN = "0123456789abcdef0123456789abcdef"
Make = Callable[..., Supervisor]


def wanted(error_log: str = "", **settings: Any) -> Wanted | None:
    return Wanted.by(Settings(**settings), {"app": "x"}, error_log)


class Processes:
    """Processes that live until told."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.living: set[int] = set()
        self.fails = False

    def spawn(self, supervisor: Supervisor, wanted: Any) -> int:
        if self.fails:
            raise OSError(11, "Resource temporarily unavailable")
        self.started.append(wanted)
        self.living.add(len(self.started))
        return len(self.started)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    made = Processes()
    monkeypatch.setattr(keeper_module, "is_running", lambda pid: pid in made.living)
    monkeypatch.setattr(keeper_module, "wait_until", lambda condition, seconds: condition())
    monkeypatch.setattr(os, "kill", lambda pid, number: made.living.discard(pid))
    return made


@pytest.fixture
def make(processes: Processes, clock: ManualClock) -> Iterator[Make]:
    made: list[Supervisor] = []

    def supervisor(**settings: Any) -> Supervisor:
        made.append(Supervisor(wanted(**settings), 3, (-1, -1), spawn=processes.spawn, now=clock.now))
        return made[-1]

    yield supervisor
    for each in made:
        each.stop()
        assert not each.socket_folder.folder.exists()


def test_it_is_started_again_later_each_time_and_at_once_when_it_had_lived(
    make: Make, processes: Processes, clock: ManualClock
) -> None:
    supervisor = make()
    waits = []
    for _ in range(8):
        supervisor.look()
        started, died_at = len(processes.started), clock.now()
        processes.living.clear()
        while len(processes.started) == started:
            supervisor.look()
            clock.advance(1.0)
        waits.append(clock.now() - died_at)
    clock.advance(HEALTHY_SECONDS)
    processes.living.clear()
    supervisor.look()

    assert waits == sorted(waits)
    assert waits[-1] <= 62
    assert supervisor.pid == len(processes.started), "it had lived long, so it is there again at once"


def test_what_can_not_be_started_is_tried_again(
    make: Make, processes: Processes, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make()
    processes.fails = True
    supervisor.look()
    processes.fails = False
    supervisor.look()
    before = supervisor.pid
    clock.advance(5.0)
    supervisor.look()

    assert (before, supervisor.pid) == (0, 1)
    assert "can't be started" in caplog.text


def test_a_reload_keeps_it_unless_it_should_be_another(make: Make, processes: Processes) -> None:
    supervisor = make()
    supervisor.look()

    pids = []
    for now in (
        wanted(backlog=7),
        wanted(ops_bind="127.0.0.1:9001"),
        wanted(ops_bind="127.0.0.1:9001", error_log="/var/log/shop.log"),
        wanted(ops_bind="off"),
    ):
        supervisor.reload(now)
        supervisor.look()
        pids.append(supervisor.pid)

    assert pids == [1, 2, 3, 0]
    assert [each.address[1] for each in processes.started] == [8001, 9001, 9001]
    assert [each.error_log for each in processes.started] == ["", "", "/var/log/shop.log"]


def test_the_token_is_in_no_command_line_and_no_other_secret_comes_along(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:do-not-tell@h/d")
    supervisor = make(ops_token=TOKEN)
    assert supervisor.wanted is not None

    arguments, environment = supervisor.arguments(supervisor.wanted), supervisor.environment(supervisor.wanted)

    assert arguments[:5] == [sys.executable, "-P", "-m", "greenroom.ops", "--serve"]
    assert json.loads(arguments[5])["address"] == ["127.0.0.1", 8001]
    assert TOKEN not in " ".join(arguments)
    assert environment["GREENROOM_OPS_TOKEN"] == TOKEN
    assert "do-not-tell" not in " ".join(environment.values())


def test_ops_process_does_without_gevent_and_the_other_commands() -> None:
    """Each is memory that every server would have once more."""
    said = (
        "import sys, greenroom.ops.__main__ as entry; entry.leave_out_tls(); import greenroom.ops.program; "
        "print(*(name for name, module in sys.modules.items() if module is not None))"
    )

    imported = subprocess.run(
        [sys.executable, "-P", "-c", said],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()

    assert "greenroom.ops.program" in imported
    assert {"gevent", "greenlet", "rich", "greenroom.cli", "greenroom.load", "greenroom.doctor"}.isdisjoint(imported)
    assert {"ssl", "_ssl", "_hashlib", "ctypes", "dotenv", "greenroom.settings"}.isdisjoint(imported)


@pytest.mark.parametrize(
    ("webhooks", "has_tls"),
    [
        ("", False),
        ("http://127.0.0.1:1/hook", False),
        ("http://127.0.0.1:1/hook,HTTPS://hooks.example.com/T1", True),
    ],
)
def test_ops_process_loads_tls_where_a_webhook_needs_it(webhooks: str, has_tls: bool) -> None:
    said = (
        "import sys, greenroom.ops.__main__ as entry, unittest.mock as mock\n"
        "with mock.patch.dict(sys.modules):\n"
        "    sys.modules.pop('ssl', None)\n"
        "    sys.modules['greenroom.ops.program'] = program = mock.Mock()\n"
        "    program.serve.return_value = 0\n"
        "    sys.argv = ['', '--serve', '{}']\n"
        "    assert entry.main() == 0\n"
        "    told, token, urls = program.serve.call_args.args\n"
        "    print('ssl' not in sys.modules or sys.modules['ssl'] is not None, token, len(urls))\n"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", said],
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE_PARENT),
            "GREENROOM_OPS_TOKEN": "secret",
            "GREENROOM_OPS_WEBHOOKS": webhooks,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.stdout.split(), done.stderr) == (
        [str(has_tls), "secret", str(len([u for u in webhooks.split(",") if u]))],
        "",
    )
