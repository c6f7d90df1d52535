import os
from pathlib import Path

import pytest

from greenroom.cores import affinity, cgroup_quota, throttled, usable_cores


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def self_cgroup(tmp_path: Path) -> Path:
    path = tmp_path / "self"
    path.write_text("0::/docker/abc\n")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_no_cgroup_file_means_no_quota(root: Path, self_cgroup: Path) -> None:
    assert cgroup_quota(root, self_cgroup) is None
    assert usable_cores(root, self_cgroup) == affinity()


def test_the_quota_of_the_own_group_counts(root: Path, self_cgroup: Path) -> None:
    write(root / "docker/abc/cpu.max", "150000 100000")

    assert cgroup_quota(root, self_cgroup) == 1.5
    assert usable_cores(root, self_cgroup) == 1


def test_the_tightest_parent_counts(root: Path, self_cgroup: Path) -> None:
    write(root / "docker/abc/cpu.max", "400000 100000")
    write(root / "docker/cpu.max", "50000 100000")

    assert cgroup_quota(root, self_cgroup) == 0.5


def test_max_is_no_limit(root: Path, self_cgroup: Path) -> None:
    write(root / "docker/abc/cpu.max", "max 100000")

    assert cgroup_quota(root, self_cgroup) is None


def test_inside_a_container_the_mounted_root_is_the_own_group(root: Path, self_cgroup: Path) -> None:
    write(root / "cpu.max", "200000 100000")

    assert cgroup_quota(root, self_cgroup) == 2.0


def test_version_1_is_read_too(root: Path, tmp_path: Path) -> None:
    self_cgroup = tmp_path / "v1"
    self_cgroup.write_text("5:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n")
    write(root / "cpu/docker/abc/cpu.cfs_quota_us", "300000")
    write(root / "cpu/docker/abc/cpu.cfs_period_us", "100000")

    assert cgroup_quota(root, self_cgroup) == 3.0


def test_version_1_without_a_limit_says_minus_one(root: Path, tmp_path: Path) -> None:
    self_cgroup = tmp_path / "v1"
    self_cgroup.write_text("4:cpu:/\n")
    write(root / "cpu/cpu.cfs_quota_us", "-1")
    write(root / "cpu/cpu.cfs_period_us", "100000")

    assert cgroup_quota(root, self_cgroup) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_affinity_is_respected(root: Path, self_cgroup: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})

        assert usable_cores(root, self_cgroup) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_periods_of_the_tightest_quota_are_counted(root: Path, self_cgroup: Path, tmp_path: Path) -> None:
    assert throttled(root, self_cgroup) is None
    write(root / "docker/abc/cpu.max", "400000 100000")
    write(root / "docker/abc/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 0\nthrottled_usec 0\n")
    write(root / "docker/cpu.max", "20000 100000")
    assert throttled(root, self_cgroup) == (4.0, 10, 0), "the other does not count"

    write(root / "docker/cpu.stat", "nr_periods 50\nnr_throttled 40\nthrottled_usec 900\n")
    assert throttled(root, self_cgroup) == (0.2, 50, 40)
