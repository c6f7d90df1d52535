"""benchmarks/machine.py and the servers' environment: what makes runs comparable."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks.machine import CoreClock, cpu_model, parse_core_list, plan_pinning, siblings_of
from benchmarks.peers import WORKER_CLASSES
from benchmarks.servers import effective_settings, gunicorn
from greenroom.settings import Settings

CLASSES = [peer.name for peer in WORKER_CLASSES]


def alone(*cores: int) -> dict[int, frozenset[int]]:
    return {core: frozenset({core}) for core in cores}


def test_server_gets_one_core_and_the_load_the_others() -> None:
    pinning = plan_pinning(frozenset({2, 3, 5}), alone(2, 3, 5))

    assert (pinning.server, pinning.load) == ({2}, {3, 5})
    assert pinning.note == "the server ran on core 2; load generator and all else on cores 3, 5"


def test_the_servers_hyper_thread_sibling_stays_idle_where_it_can() -> None:
    siblings = {0: frozenset({0, 2}), 2: frozenset({0, 2}), 1: frozenset({1, 3}), 3: frozenset({1, 3})}

    pinning = plan_pinning(frozenset({0, 1, 2, 3}), siblings)

    assert (pinning.server, pinning.load) == ({0}, {1, 3})


def test_sharing_the_silicon_is_told() -> None:
    pinning = plan_pinning(frozenset({0, 1}), {0: frozenset({0, 1}), 1: frozenset({0, 1})})

    assert (pinning.server, pinning.load) == ({0}, {1})
    assert "hyper-thread sibling" in pinning.note


@pytest.mark.parametrize(("cores", "why"), [(None, "has no way"), (frozenset({4}), "only one core")])
def test_where_nothing_can_be_pinned_the_reason_is_told(cores: frozenset[int] | None, why: str) -> None:
    pinning = plan_pinning(cores, {})

    assert not pinning.is_pinned
    assert pinning.note.startswith("nothing was pinned")
    assert why in pinning.note


def test_core_lists_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    (tmp_path / "cpu4" / "topology").mkdir(parents=True)
    (tmp_path / "cpu4" / "topology" / "thread_siblings_list").write_text("0,4-5\n")

    assert siblings_of(4, tmp_path) == {0, 4, 5}
    assert siblings_of(9, tmp_path) == {9}
    assert parse_core_list("7") == {7}


def test_without_cores_to_watch_the_clock_knows_nothing() -> None:
    assert CoreClock(frozenset()).busy_ratio() is None


def test_cpu_model_is_found_in_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Example CPU @ 3 GHz\n")

    assert cpu_model(tmp_path / "cpuinfo") == "Example CPU @ 3 GHz"


def test_only_the_worker_class_differs_between_the_compared_servers() -> None:
    found = [effective_settings(gunicorn(name, "shop:app")) for name in CLASSES]

    assert [one.pop("worker_class") for one in found] == CLASSES
    assert found[0] == found[1] == found[2]
    assert found[0]["web_concurrency"] == 1


def test_every_setting_is_named_so_that_no_env_file_can_change_one() -> None:
    environment = gunicorn("gevent", "shop:app").environment

    assert len(environment) == len(dataclasses.fields(Settings))
    assert environment["GREENROOM_ACCESS_LOG"] == ""
