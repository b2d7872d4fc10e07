"""The cores that a process may use, by made-up files of the kernel, and the shares of workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmsa_cache.native import cores
from mmsa_cache.native.cores import CoreShare, core_share, usable_cores

V2 = "30 23 0:26 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"
V1 = "32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
OTHER = "35 31 0:32 / {point} rw,relatime - cgroup cgroup rw,memory\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 processors; its groups are mounted below ``/groups``."""
    monkeypatch.setattr(cores, "_PROC", tmp_path)
    monkeypatch.setattr(cores, "_CPUS", tmp_path / "cpus")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    return tmp_path


def mounted(system: Path, groups: str, line: str, root: str = "/", point: str = "groups") -> Path:
    """Writes what the kernel says of a process; returns where its groups are mounted."""
    folder = system / point
    escaped = str(folder).replace(" ", r"\040")
    (system / "cgroup").write_text(groups)
    (system / "mountinfo").write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        + OTHER.format(point=system / "memory")
        + line.format(root=root, point=escaped)
    )
    return folder


def limit(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("own", "above", "top", "count"),
    [
        ("max 100000", "max 100000", None, 16),
        ("400000 100000", "max 100000", None, 4),
        ("400000 100000", "250000 100000", None, 2),
        ("max 100000", "max 100000", "50000 100000", 1),
        ("9900000 100000", None, None, 16),
        ("nonsense", "1 0", None, 16),
    ],
)
def test_a_quota_of_version_2_counts_at_every_level(
    system: Path, own: str, above: str | None, top: str | None, count: int
) -> None:
    folder = mounted(system, "0::/jobs/one\n", V2)
    for place, quota in (("jobs/one", own), ("jobs", above), (".", top)):
        if quota is not None:
            limit(folder / place, cpu_max=quota)
    limit(folder / "jobs/two", cpu_max="100000 100000")
    assert usable_cores() == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 16), ("350000", 3), ("20000", 1)])
def test_a_quota_of_version_1(system: Path, quota: str, count: int) -> None:
    groups = "4:memory:/jobs\n1:cpuacct,cpu:/jobs/one\n0::/\n"
    folder = mounted(system, groups, V1, point="with space")
    limit(folder / "jobs", cpu_cfs_quota_us="900000", cpu_cfs_period_us="100000")
    limit(folder / "jobs/one", cpu_cfs_quota_us=quota, cpu_cfs_period_us="100000")
    limit(system / "memory/jobs", cpu_cfs_quota_us="100000", cpu_cfs_period_us="100000")
    assert usable_cores() == (9 if quota == "-1" else count)


@pytest.mark.parametrize("group", ["/docker/abc", "/", "/../elsewhere"])
def test_a_container_sees_its_own_group_as_the_root(system: Path, group: str) -> None:
    """With a namespace of its own its list says ``/``, without one what the host says."""
    root = "/" if group == "/" else "/docker/abc"
    limit(mounted(system, f"0::{group}\n", V2, root), cpu_max="300000 100000")
    limit(system / "elsewhere", cpu_max="100000 100000")
    assert usable_cores() == 3


def test_a_system_without_groups_and_affinity(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
    assert core_share(1, 4) == CoreShare(2, frozenset())
    assert core_share(2, 4) == CoreShare(1, frozenset())
    core_share(0, 1).pin()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_what_python_is_told_counts(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert usable_cores() == 5


@pytest.mark.parametrize("of", [1, 2, 3, 5, 16, 40])
def test_shares_are_the_whole_and_as_equal_as_can_be(system: Path, of: int) -> None:
    shares = [core_share(number, of) for number in range(of)]
    assert frozenset().union(*(share.cpus for share in shares)) == frozenset(range(16))
    assert sum(len(share.cpus) for share in shares) == max(16, of)
    assert {share.count for share in shares} <= {max(1, 16 // of), -(-16 // of)}
    if of <= 16:
        assert sum(share.count for share in shares) == 16


def test_a_quota_limits_threads_and_not_processors(system: Path) -> None:
    limit(mounted(system, "0::/\n", V2), cpu_max="600000 100000")
    shares = [core_share(number, 4) for number in range(4)]
    assert [share.count for share in shares] == [2, 2, 1, 1]
    assert [len(share.cpus) for share in shares] == [4] * 4


def test_processors_of_a_core_and_cores_of_a_socket_stay_together(system: Path) -> None:
    """As Linux numbers them: first one processor of each core, sockets in turns."""
    for cpu in range(16):
        folder = system / f"cpus/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{cpu % 2}\n")
        (folder / "core_id").write_text(f"{cpu % 8 // 2}\n")
    assert core_share(0, 2).cpus == {0, 2, 4, 6, 8, 10, 12, 14}
    assert core_share(1, 8).cpus == {2, 10}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_a_worker_stays_on_its_share() -> None:
    whole = os.sched_getaffinity(0)
    share = core_share(0, len(whole))
    try:
        share.pin()
        assert os.sched_getaffinity(0) == share.cpus
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, whole)
    CoreShare(1, frozenset({max(whole) + 4096})).pin()  # refused, and no matter
    assert os.sched_getaffinity(0) == whole
