"""The cores that this process may use, and the share of each of several workers."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.files.untrusted import open_regular

_PROC = Path("/proc/self")
_CPUS = Path("/sys/devices/system/cpu")
_MOST = 1 << 20
"""Most bytes read of a file of the kernel."""
_GROUP = re.compile(r"^\d+:([^:\n]*):(.+)$", re.MULTILINE)
"""Controllers, none for version 2, and the group's path."""
_MOUNT = re.compile(r"^\d+ \d+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.MULTILINE)
"""The group that is mounted, where, by which version, and with which controllers."""


@dataclass(frozen=True, slots=True)
class CoreShare:
    """The cores of one of several workers."""

    count: int
    """Number of threads, at least one."""
    cpus: frozenset[int]
    """Logical processors to run on; empty if the system cannot pin threads."""

    def pin(self) -> None:
        """Pins the calling thread, and all that it starts later, to these processors."""
        if self.cpus:
            with contextlib.suppress(OSError):  # a container may forbid it; it is only slower then
                os.sched_setaffinity(0, self.cpus)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quotas of its control groups."""
    return max(1, min([_allowed(), *_quotas()]))


def core_share(number: int, of: int) -> CoreShare:
    """The share of one of several workers on this machine.

    Processors of one core, and cores of one socket, stay together. Where there are more workers
    than cores, several are on one. A quota limits the threads, not the processors, which other
    containers with a quota share.

    Args:
        number: The worker, from 0.
        of: Workers in all.
    """
    cpus = sorted(_affinity(), key=_topology)
    first, end = (len(cpus) * n // of for n in (number, number + 1))
    own = cpus[first:end] or cpus[first : first + 1]
    cores, more = divmod(usable_cores(), of)
    return CoreShare(max(1, cores + (number < more)), frozenset(own))


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set()  # as on macOS and Windows


def _allowed() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13; it heeds PYTHON_CPU_COUNT as well
        return int(os.process_cpu_count() or 1)
    return len(_affinity()) or os.cpu_count() or 1


def _topology(cpu: int) -> tuple[int, int, int]:
    """Socket, core and number of a logical processor."""
    folder = _CPUS / f"cpu{cpu}/topology"
    socket, core = (_read(folder / name) for name in ("physical_package_id", "core_id"))
    return _number(socket), _number(core), cpu


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _quotas() -> Iterator[int]:
    """Cores that the control groups of this process, and those above them, grant.

    Files and their meaning: the kernel's admin-guide/cgroup-v2.rst (``cpu.max``) and
    scheduler/sched-bwc.rst (``cpu.cfs_quota_us``), cgroups(7), and proc(5) on mountinfo.
    """
    groups = _GROUP.findall(_read(_PROC / "cgroup"))
    for root, point, kind, options in _MOUNT.findall(_read(_PROC / "mountinfo")):
        for controllers, group in groups:
            is_v1 = kind == "cgroup" and "cpu" in {*controllers.split(",")} & {*options.split(",")}
            if is_v1 or (kind == "cgroup2" and not controllers):
                for folder in _upward(Path(_unescaped(point)), _unescaped(root), group):
                    yield from _quota(folder)


def _unescaped(field: str) -> str:
    return field.replace(r"\040", " ").replace(r"\134", "\\")


def _upward(point: Path, root: str, group: str) -> Iterator[Path]:
    """The folder of a group and those above it, up to where they are mounted."""
    # A container may see its own group as the root, and the host's name of it in its own list.
    inside = Path(group).relative_to(root) if Path(group).is_relative_to(root) else Path()
    parts = [part for part in inside.parts if part not in ("/", "..")]
    for end in range(len(parts), -1, -1):
        yield point.joinpath(*parts[:end])


def _quota(folder: Path) -> Iterator[int]:
    v1 = (_read(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    quota, period, *_ = (*(_read(folder / "cpu.max") or " ".join(v1)).split(), "", "")
    if _number(quota) and _number(period):  # else it is "max", or -1
        yield int(quota) // int(period)


def _read(file: Path) -> str:
    """A file of the kernel; empty where there is none."""
    with contextlib.suppress(OSError, ValueError), open_regular(file) as content:
        return content.read(_MOST).decode()
    return ""
