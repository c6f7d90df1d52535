"""Causes that the ops process finds itself: endings, reloads, limits, usual times; and the alerts it sends."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from greenroom.ops import endings
from greenroom.ops import limits as limits_module
from greenroom.ops.client import OpsError
from greenroom.ops.commands import check
from greenroom.ops.limits import Limits, control_groups, growth, limits_of, memory_of_all
from greenroom.ops.plain_top import run as run_plain_top
from greenroom.ops.socket_folder import SocketFolder
from greenroom.ops.usual import Usual

from .fakes import ABOUT, moment, seen, shown, snapshot

MB = 1_000_000.0


class Told:
    """A client whose server says this."""

    def __init__(self, verdict: Mapping[str, Any] | None) -> None:
        self.said = verdict
        self.url = "http://127.0.0.1:8001"

    def verdict(self) -> Mapping[str, Any]:
        if self.said is None:
            raise OpsError("nothing listens at http://127.0.0.1:8001")
        return self.said

    def view(self) -> Mapping[str, Any]:
        return shown(seen(said=snapshot()))


@pytest.mark.parametrize(("level", "code", "word"), [("ok", 0, "OK"), ("watch", 1, "WARNING"), ("bad", 2, "CRITICAL")])
def test_check_says_the_sentence_and_exits_as_nagios_wants(
    capsys: pytest.CaptureFixture[str], level: str, code: int, word: str
) -> None:
    client: Any = Told({"level": level, "cause": "x", "sentence": "It is so.", "do": "Do that.", "at": 100.0})

    assert check(client, now=lambda: 101.0) == code
    assert capsys.readouterr().out == f"{word}: It is so. Do that.\n"


@pytest.mark.parametrize(
    "said",
    [None, {}, {"level": "ok", "sentence": "It was so.", "at": 10.0}, {"level": "odd", "sentence": "?", "at": 100}],
)
def test_check_knows_when_it_knows_nothing(capsys: pytest.CaptureFixture[str], said: Any) -> None:
    client: Any = Told(said)

    assert check(client, now=lambda: 101.0) == 3
    assert capsys.readouterr().out.startswith("UNKNOWN: ")


def test_check_prints_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = Told({"level": "bad", "cause": "x", "sentence": "It is so.", "at": 100.0})

    check(client, as_json=True, now=lambda: 101.0)

    assert json.loads(capsys.readouterr().out)["cause"] == "x"


def test_top_without_rich_is_plain_text() -> None:
    written: list[str] = []
    client: Any = Told({})

    assert run_plain_top(client, written.append, looks=()) == 0
    assert "[ok] Healthy." in written[0]
    assert "workers (?: does not answer)" in written[0]


def test_how_a_child_ended_is_seen_before_it_is_reaped() -> None:
    def child(how: Any) -> int:
        pid = os.fork()
        if not pid:
            how()
            os._exit(0)
        return pid

    killed = child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    failed = child(lambda: os._exit(7))
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    os.waitid(os.P_PID, failed, os.WEXITED | os.WNOWAIT)

    said = endings.ending_of(killed), endings.ending_of(failed), endings.ending_of(os.getpid())
    for pid in (killed, failed):
        os.waitpid(pid, 0)

    assert said == ({"signal": "SIGKILL"}, {"code": 7}, None)


def test_a_worker_that_could_not_boot_says_why(tmp_path: Path) -> None:
    folder = SocketFolder(tmp_path)

    endings.boot_failed(folder, ModuleNotFoundError("No module named 'nope'"))
    endings.reloading(folder)

    said = json.loads(folder.boot_failure(os.getpid()).read_text())
    assert (said["error"], said["message"]) == ("ModuleNotFoundError", "No module named 'nope'")
    assert json.loads(folder.reload.read_text())["at"] == pytest.approx(time.time(), abs=60)


def sizes(*totals: float, step: float = 5.0) -> list[tuple[float, float, dict[int, float]]]:
    return [(step * number, 10.0 * number, {1: total}) for number, total in enumerate(totals)]


def test_memory_that_grows_all_the_time_is_growth() -> None:
    memory = {"available_bytes": 1000 * MB}

    found = growth(sizes(*(100 * MB + 10 * MB * number for number in range(7))), memory)

    assert found is not None
    assert found["bytes_per_second"] == pytest.approx(2 * MB)
    assert found["bytes_per_request"] == pytest.approx(1 * MB)
    assert found["until_full_seconds"] == pytest.approx(500.0)


@pytest.mark.parametrize(
    "totals",
    [
        (100 * MB,) * 7,
        (100 * MB, 130 * MB, 160 * MB, 160 * MB, 160 * MB, 160 * MB, 160 * MB),  # warm by now
        (100 * MB, 101 * MB, 102 * MB, 103 * MB, 104 * MB, 105 * MB, 106 * MB),
        (100 * MB, 200 * MB),
    ],
)
def test_memory_that_ends_to_grow_is_none(totals: tuple[float, ...]) -> None:
    assert growth(sizes(*totals), {"available_bytes": 1000 * MB}) is None


def test_limits_of_this_process_are_found(tmp_path: Path) -> None:
    limits = Limits([tmp_path])

    found = limits.look({os.getpid(): (1, 5e7)}, 10.0)

    (row,) = found["descriptors"]
    assert row["worker"] == 1
    assert 0 < row["used"] < row["limit"]
    assert row["limit"] == limits_of(os.getpid()).get("Max open files", row["limit"])
    assert found["disks"]
    assert found["memory"]["limit_bytes"] > 0
    assert all(str(folder).startswith("/sys/fs/cgroup") for folder in control_groups())


@pytest.mark.parametrize(
    ("groups", "name", "files"),
    [
        ("1:name=systemd:/\n0::/docker/a\n", "docker", ("memory.max", "memory.current")),
        ("4:memory:/docker/a\n0::/\n", "memory/docker", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_memory_of_a_container_is_that_of_its_control_group(
    groups: str, name: str, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {f"/sys/fs/cgroup/{name}/{files[0]}": ["300"], f"/sys/fs/cgroup/{name}/{files[1]}": ["280"]}
    said["/proc/self/cgroup"] = groups.splitlines()
    monkeypatch.setattr(limits_module, "_lines", lambda path: said.get(str(path), []))

    assert memory_of_all() == {"limit_bytes": 300.0, "used_bytes": 280.0, "available_bytes": 20.0}


def test_a_cpu_quota_is_told_with_the_share_of_its_last_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([(0.5, 1000, 900), (0.5, 1020, 905), (0.5, 1120, 1005), None])
    times = iter([0.0, 2.0, 11.5, 14.0])
    monkeypatch.setattr(limits_module, "throttled", lambda: next(counted))
    limits = Limits(now=lambda: next(times))

    said = [limits.look({}, 0.0)["quota"] for _ in range(4)]

    assert said[:2] == [{"cores": 0.5, "stopped_ratio": 0.0}, {"cores": 0.5, "stopped_ratio": 0.25}]
    assert said[2:] == [{"cores": 0.5, "stopped_ratio": 1.0}, None]


def test_what_is_usual_leaves_out_the_present() -> None:
    usual = Usual()
    for step in range(10):
        slow = max(0, step - 7)
        count, seconds = 10 * step, 1.0 * step + 50.0 * slow
        usual.look(10.0 * step, {"/a": {"count": count, "total_seconds": seconds, "seconds": [seconds]}})

    said = usual.of("/a")

    assert said is not None
    assert said["seconds"] == pytest.approx(0.1)
    assert usual.of("/b") is None


def test_metrics_tell_the_verdict_and_the_causes() -> None:
    from greenroom.ops.metrics import exposition

    said = snapshot(
        failed={"KeyError /a": {"class": "KeyError", "route": "/a", "count": 3}},
        upstreams={"api:443": {"waits": 1, "seconds": 0.1, "status_500": 2, "refused": 4, "requests": 1, "calls": 3}},
        clients={"total": 9.0, "known": 1, "top": [], "shed": {"public": 5}},
        garbage={"count": 7, "seconds": 0.5, "longest_seconds": 0.1},
    )
    now = moment(seen(said=said))
    verdict = {"cause": "errors", "level": "bad", "others": [{"cause": "cpu", "level": "watch"}]}

    text = exposition(now, verdict)

    for line in (
        'greenroom_verdict{cause="errors",level="bad"} 1',
        'greenroom_verdict{cause="cpu",level="watch"} 1',
        'greenroom_exceptions_total{class="KeyError",route="/a"} 3',
        'greenroom_upstream_answers_total{host="api:443",status="500"} 2',
        'greenroom_upstream_failed_connects_total{host="api:443",reason="refused"} 4',
        'greenroom_requests_shed_by_client_total{client="public"} 5',
        "greenroom_gc_collections_total 7",
    ):
        assert line in text.splitlines()
    assert ABOUT["app"]
