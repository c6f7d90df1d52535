from types import SimpleNamespace
from typing import Any

import pytest

from greenroom import hooks
from greenroom.companion import Companion
from greenroom.draining import Draining
from greenroom.errors import CompanionError
from greenroom.hooks import CompanionWatch, Hooks, public_url, unfit_worker_class
from greenroom.settings import Settings


@pytest.mark.parametrize(
    ("addresses", "url"),
    [
        ([("127.0.0.1", 8000)], "http://127.0.0.1:8000"),
        ([("0.0.0.0", 80)], "http://127.0.0.1:80"),
        ([("::", 8000)], "http://[::1]:8000"),
        (["/run/app.sock", ("10.0.0.5", 9)], "http://10.0.0.5:9"),
        (["/run/app.sock"], "http://127.0.0.1:8000"),
    ],
)
def test_the_public_url_is_one_that_works_on_this_machine(addresses: list[Any], url: str) -> None:
    assert public_url(addresses) == url


@pytest.mark.parametrize(
    ("worker_class", "is_patched", "fits"),
    [("gevent", True, True), ("gevent", False, False), ("gthread", True, False), ("sync", False, True)],
)
def test_a_worker_class_fits_the_patching_or_is_refused(worker_class: str, is_patched: bool, fits: bool) -> None:
    problem = unfit_worker_class(worker_class, is_patched=is_patched)

    assert (problem == "") is fits
    assert fits or f"GREENROOM_WORKER_CLASS={worker_class}" in problem


def test_the_application_is_told_when_its_worker_drains() -> None:
    worker = SimpleNamespace(alive=True, wsgi=lambda environ, start: [environ["greenroom.draining"]])
    Hooks(Settings(), None, {}).post_worker_init(worker)

    stream: dict[str, Any] = {}
    before = worker.wsgi(stream, None)
    worker.alive = False
    after = worker.wsgi({}, None)

    assert (before, after) == ([False], [True])
    assert stream["greenroom.is_draining"]()
    assert isinstance(worker.wsgi, Draining)


def arbiter() -> tuple[Any, dict[str, int], Any]:
    """An arbiter with one worker; what its configuration is changed to; the worker."""
    worker = SimpleNamespace(age=3)
    changed: dict[str, int] = {}
    cfg = SimpleNamespace(set=changed.__setitem__)
    return SimpleNamespace(cfg=cfg, WORKERS={1: worker}, worker_age=3, address=[("127.0.0.1", 1)]), changed, worker


@pytest.fixture
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "running", hooks.Running())


@pytest.mark.usefixtures("_nothing_runs")
def test_wrong_settings_end_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        hooks.read_settings({"GREENROOM_BACKLOG": "x"})

    assert caught.value.code == 2
    assert "GREENROOM_BACKLOG must be" in capsys.readouterr().err


@pytest.mark.usefixtures("_nothing_runs")
def test_wrong_settings_at_a_reload_change_nothing() -> None:
    first = hooks.read_settings({"GREENROOM_BACKLOG": "7"})
    server, changed, worker = arbiter()

    second = hooks.read_settings({"GREENROOM_BACKLOG": "x"})
    Hooks(second, None, {}).on_reload(server)

    assert second is first
    assert changed == {"workers": 0}
    assert worker.age > server.worker_age


@pytest.mark.usefixtures("_nothing_runs")
def test_right_settings_at_the_next_reload_count_again() -> None:
    hooks.read_settings({"GREENROOM_BACKLOG": "7"})
    hooks.read_settings({"GREENROOM_BACKLOG": "x"})
    server, changed, _ = arbiter()

    Hooks(hooks.read_settings({"GREENROOM_BACKLOG": "8"}), None, {}).on_reload(server)

    assert changed == {}


@pytest.mark.usefixtures("_nothing_runs")
def test_a_reload_whose_companion_fails_replaces_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Companion:
        raise CompanionError("no")

    monkeypatch.setattr(Companion, "start", fail)
    server, changed, worker = arbiter()
    old = Companion(["old"])
    hooks.running.companion = old

    Hooks(Settings(), ["new"], {}).on_reload(server)

    assert changed == {"workers": 0}
    assert worker.age > server.worker_age
    assert hooks.running.companion is old


@pytest.mark.usefixtures("_nothing_runs")
def test_companion_that_has_ended_is_started_again_with_pauses_when_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    now, running_pids, started = [100.0], {1}, []

    def start() -> Companion:
        started.append(now[0])
        if len(started) < 3:
            raise CompanionError("no")
        running_pids.add(2)
        return Companion(["new"], pid=2)

    monkeypatch.setattr(hooks, "is_running", lambda pid: pid in running_pids)
    hooks.running.companion = Companion(["old"], pid=1)
    watch = CompanionWatch(start, lambda: now[0])
    watch.look()
    assert started == []

    running_pids.clear()
    for now[0] in (101.0, 101.5, 102.0, 103.0, 104.0, 105.0):
        watch.look()

    assert started == [101.0, 102.0, 104.0]
    assert hooks.running.companion.pid == 2


class FakeFleet:
    reloads = 0

    def begin_reload(self) -> None:
        self.reloads += 1


@pytest.mark.usefixtures("_nothing_runs")
def test_a_fleet_replaces_the_workers_in_a_reload() -> None:
    hooks.running.fleet = fleet = FakeFleet()  # type: ignore[assignment]

    Hooks(Settings(ops_bind="off"), None, {}).on_reload(SimpleNamespace(cfg=SimpleNamespace(errorlog="-"), address=[]))

    assert fleet.reloads == 1


@pytest.mark.usefixtures("_nothing_runs")
@pytest.mark.parametrize(
    ("worker_class", "has_fleet"),
    [("greenroom.worker.GreenWorker", True), ("greenroom.Worker", True), ("gevent", False)],
)
def test_only_our_workers_are_replaced_by_us(
    monkeypatch: pytest.MonkeyPatch, worker_class: str, has_fleet: bool
) -> None:
    monkeypatch.setattr(hooks, "unfit_worker_class", lambda *_, **__: "")
    own = object()
    server = SimpleNamespace(
        cfg=SimpleNamespace(worker_class_str=worker_class, certfile=None, keyfile=None, errorlog="-"),
        **dict.fromkeys(("manage_workers", "signal", "reap_workers"), own),
        LISTENERS=[],
        address=[],
    )

    Hooks(Settings(ops_bind="off"), None, {}).begin(server)

    assert (hooks.running.fleet is not None) is has_fleet
    assert (server.manage_workers is not own) is has_fleet


@pytest.mark.usefixtures("_nothing_runs")
def test_a_server_goes_on_without_an_ops_process_that_can_not_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("greenroom.ops.supervisor.Supervisor", fail)
    server = SimpleNamespace(address=[("127.0.0.1", 1)], cfg=SimpleNamespace(uid=0, gid=0, errorlog="-"))

    assert Hooks(Settings(), None, {})._ops(server) is None
    assert "the server goes on without it" in caplog.text


@pytest.mark.usefixtures("_nothing_runs")
def test_the_ops_process_is_looked_after_in_each_turn_of_the_arbiter(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    supervisor = SimpleNamespace(look=lambda: turns.append("look"), socket_folder=None)
    monkeypatch.setattr("greenroom.ops.supervisor.Supervisor", lambda *_, **__: supervisor)
    server = SimpleNamespace(
        address=[("127.0.0.1", 1), ("::1", 2), "/run/x.sock"],
        cfg=SimpleNamespace(uid=0, gid=0, errorlog="-"),
        manage_workers=lambda: turns.append("manage"),
        reap_workers=lambda: None,
    )

    Hooks(Settings(), None, {})._ops(server)
    server.manage_workers()

    assert turns == ["manage", "look"]
