"""Machines of a Ray cluster, as processes of this one; they, workers and drivers can be killed.

``python -m tests.support.ray_machines ROOT ADDRESS WORKERS ROWS NUMBER`` is a driver.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

WINDOW, BATCH = 8, 4
SECONDS = 0.02
"""That a row takes."""
_LOOKING = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}
"""How Ray looks whether a machine is there; by itself it takes half a minute to see it go."""


class RayMachines:
    """A head without CPUs, and machines that come and go.

    Args:
        machines: How many.
        cpus: Of each.
    """

    def __init__(self, machines: int, cpus: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster()
        self._cpus = cpus
        self._cluster.add_node(num_cpus=0, include_dashboard=False, _system_config=_LOOKING)
        self.nodes = [self.add() for _ in range(machines)]
        self.address: str = self._cluster.address

    def add(self) -> Any:
        """One more machine."""
        return self._cluster.add_node(num_cpus=self._cpus)

    def lose(self) -> None:
        """Kills a machine with all that runs there."""
        self._cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def replace(self, place: int) -> None:
        """The same, and another one comes."""
        self.nodes.append(self.nodes.pop(place))
        self.lose()
        self.nodes.append(self.add())

    def workers(self, name: str = "RayWorker") -> list[int]:
        """Processes of actors, on all machines."""
        return [
            child.pid
            for node in self.nodes
            for child in _children(node.all_processes["raylet"][0].process.pid)
            if name in _title(child)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cluster.shutdown()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def start_driver(
    root: Path, address: str, workers: int, rows: int, number: int = 0
) -> subprocess.Popen[bytes]:
    """A driver of its own process; several on one store have different numbers."""
    arguments = [str(root), address, str(workers), str(rows), str(number)]
    command = [sys.executable, "-W", "error", "-m", __name__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_until(what: Callable[[], bool], seconds: float = 120.0) -> None:
    """Looks again and again."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def main() -> None:
    from extract.crew.driver import drive
    from extract.crew.ray_crew import RayCrew
    from extract.plan import FeatureJob
    from mmsa_cache.native.signals import sigterm_as_interrupt
    from tests.support.crew import CompanySource, plan_of
    from tests.support.rows import claimed

    root, address, workers, rows, number = sys.argv[1:]
    with sigterm_as_interrupt(), claimed(Path(root), (int(number), 9)) as writer:
        crew = RayCrew(
            CompanySource(SECONDS),
            [writer.sealer],
            address,
            int(workers),
            gpu=False,
            batch_size=BATCH,
        )
        drive([FeatureJob(plan_of(int(rows)), writer)], crew, shard_rows=WINDOW)


if __name__ == "__main__":
    main()
