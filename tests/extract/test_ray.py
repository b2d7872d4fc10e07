"""Ray actors: the bytes of a plain run, whatever happens to them, their machines or the driver."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from extract.crew import ray_crew
from extract.crew.driver import drive
from extract.crew.ray_crew import RayCrew
from extract.plan import FeatureJob
from mmsa_cache.errors import DataError, DeviceError, SettingsError
from mmsa_cache.native import ray_cluster as ray_cluster_module
from mmsa_cache.native.ray_cluster import ray_cluster
from mmsa_cache.version import __version__
from tests.support.crew import CompanySource, plain_rows, plan_of
from tests.support.data_folders import mmsa
from tests.support.engine_rows import rows_in
from tests.support.pairs import make_pairs
from tests.support.ray_actor import LightWorker, Number, Told
from tests.support.ray_machines import BATCH, WINDOW, RayMachines, kill, start_driver, wait_until
from tests.support.rows import Rows, claimed, row_bytes
from tests.support.tally import Tally
from tests.support.tiny import tiny_toml

pytest.importorskip("ray", reason="Ray is not installed: pip install 'mmsa[ray]'")
ROWS = 400


@pytest.fixture(scope="module")
def machines() -> Iterator[RayMachines]:
    with RayMachines(2, cpus=2) as machines:
        yield machines


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of one process that nothing happens to."""
    return plain_rows(tmp_path_factory.mktemp("plain"), ROWS, WINDOW, BATCH)


def sealed(root: Path) -> int:
    """Shards that lie there, entered or not."""
    return len(list(root.rglob("*.h5")))


def ends_well(driver: subprocess.Popen[bytes]) -> None:
    out, said = driver.communicate(timeout=120)
    assert driver.returncode == 0, said.decode()
    assert out == b"", "standard output is for results"


@contextmanager
def two_drivers(machines: RayMachines, root: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Each with two workers, on all rows of one store."""
    drivers = [start_driver(root, machines.address, 2, ROWS, number) for number in (0, 1)]
    try:
        yield drivers
    finally:
        for driver in drivers:
            driver.kill()
            driver.communicate()


def test_two_drivers_make_each_row_once_though_workers_a_machine_and_one_of_them_are_killed(
    machines: RayMachines, plain: Rows, tmp_path: Path
) -> None:
    with two_drivers(machines, tmp_path) as drivers:
        wait_until(lambda: sealed(tmp_path) > 0 and len(machines.workers()) == 4)
        for fault in (
            lambda: kill(machines.workers()[0]),
            machines.lose,
            drivers[0].kill,
        ):
            fault()
            more = sealed(tmp_path) + 2
            wait_until(lambda more=more: sealed(tmp_path) >= more)
        ends_well(drivers[1])
    assert row_bytes(tmp_path) == plain
    wait_until(lambda: not machines.workers())


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_at_random_moments_lose_nothing(
    machines: RayMachines, plain: Rows, tmp_path: Path, tally: Tally, seed: int
) -> None:
    chance = random.Random(seed)
    plan = ["worker"] * 5 + ["driver"] * 3 + ["machine"] * 2
    chance.shuffle(plan)
    kills: list[str] = []
    for number in itertools.count():
        root = tmp_path / str(number)
        with two_drivers(machines, root) as drivers:

            def over(drivers: list[subprocess.Popen[bytes]] = drivers) -> bool:
                return all(driver.poll() is not None for driver in drivers)

            while len(kills) < 10 and not over():
                wait_until(lambda root=root: over() or (sealed(root) and machines.workers()))
                time.sleep(chance.uniform(0.0, 2.0))
                kills.append(plan[len(kills)])
                if kills[-1] == "machine":
                    machines.replace(chance.randrange(2))
                elif kills[-1] == "driver":
                    place = chance.randrange(2)
                    drivers[place].kill()
                    drivers[place].communicate()
                    drivers[place] = start_driver(root, machines.address, 2, ROWS, place)
                elif workers := machines.workers():
                    kill(chance.choice(workers))
                else:
                    kills.pop()
            for driver in drivers:  # one that found a piece killed too often names it
                said = driver.communicate(timeout=120)[1].decode()
                assert driver.returncode == 0 or "The same command tries them again" in said
        ends_well(start_driver(root, machines.address, 2, ROWS))
        assert row_bytes(root) == plain
        if len(kills) >= 10:
            break
    counts = ", ".join(f"{kills.count(what)} of a {what}" for what in sorted(set(kills)))
    tally("kill -9 of extraction on Ray", 10, f"{counts}: every row once, {number + 1} stores")


def test_one_that_kills_its_worker_is_listed_and_the_rest_is_there(
    machines: RayMachines, plain: Rows, tmp_path: Path
) -> None:
    source = CompanySource(killing=(100,), bad=(50,))
    with claimed(tmp_path) as writer:
        crew = RayCrew(source, [writer.sealer], machines.address, 1, gpu=False, batch_size=BATCH)
        job = FeatureJob(plan_of(ROWS), writer, name="train text", notice=(said := []).append)
        with pytest.raises(DataError, match=r"p50: cannot be read"):
            drive([job], crew, shard_rows=WINDOW, tries=2)
    assert any("from p96 to p103: its process died" in line for line in said)
    rows = row_bytes(tmp_path)
    assert len(rows) == ROWS - 2 * WINDOW
    assert rows.items() < plain.items()


def crew_of(machines: RayMachines, told: Told, monkeypatch: pytest.MonkeyPatch) -> RayCrew:
    monkeypatch.setattr(ray_crew, "RayWorker", LightWorker)
    return RayCrew(cast(Any, told), [], machines.address, 1, gpu=False, batch_size=None)


def heard(crew: RayCrew) -> list[Any]:
    said: list[Any] = []
    wait_until(lambda: bool(said.extend(crew.wait(1.0)) or said))
    return said


def test_a_piece_that_is_forgotten_ends_its_worker_and_the_next_one_is_done(
    machines: RayMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew: Any = crew_of(machines, Told(__version__, slow=(1, 5)), monkeypatch)
    wait_until(lambda: bool(crew.wait(0.1) or crew.workers))
    assert (crew.workers, crew.capacity) == (1, 2)
    crew.submit(Number(1))
    crew.submit(Number(2))
    assert crew.capacity == 0
    crew.forget(1)
    (said,) = heard(crew)
    assert (said.piece, crew.capacity) == (2, 2)
    kill(said.pid)  # while it has nothing to do: Ray starts it again
    wait_until(lambda: machines.workers("LightWorker") not in ([], [said.pid]))
    crew.submit(Number(3))
    crew.submit(Number(4))
    assert [one.piece for one in heard(crew)] == [3]
    assert [one.piece for one in heard(crew)] == [4]
    crew.submit(Number(5))
    crew.submit(Number(6))
    crew.forget(6)  # it waits: the worker goes on
    assert (crew.workers, crew.capacity) == (1, 1)
    crew.close()
    wait_until(lambda: not machines.workers("LightWorker"))


def test_workers_of_another_version_and_those_that_cannot_be_made_are_named(
    machines: RayMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = crew_of(machines, Told("0.0.7"), monkeypatch)
    with pytest.raises(DeviceError, match=rf"there:\d+ has mmsa 0.0.7, this machine {__version__}"):
        heard(crew)
    crew.close()
    crew = crew_of(machines, Told(__version__, broken="no module named extract"), monkeypatch)
    with pytest.raises(DeviceError, match=r"Workers do not start: .*no module named extract"):
        heard(crew)
    crew.close()
    with pytest.raises(DeviceError, match="No machine of the Ray cluster has a GPU"):
        RayCrew(CompanySource(), [], machines.address, None, gpu=True, batch_size=None)


def test_workers_are_one_a_gpu_with_its_share_of_the_cores_or_one_a_core() -> None:
    machines = [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 48.0, "GPU": 4.0}, {"CPU": 16.0}, {}]
    assert ray_crew.allocate_workers(machines, None, gpu=True) == (12, 8)
    assert ray_crew.allocate_workers(machines, 5, gpu=True) == (5, 8)
    assert ray_crew.allocate_workers([], 5, gpu=True) == (5, 1)  # they may come later
    assert ray_crew.allocate_workers(machines, None, gpu=False) == (128, 1)
    with pytest.raises(DeviceError, match="No machine of the Ray cluster has a GPU"):
        ray_crew.allocate_workers(machines[2:], None, gpu=True)


@pytest.mark.faults
def test_the_command_ends_its_work_and_not_the_cluster_and_goes_on_where_it_was(
    machines: RayMachines, tmp_path: Path, text_model: Path
) -> None:
    make_pairs(tmp_path / "posts", 24)
    more = "[cache]\nshard_rows = 4\n[extract]\nbatch_size = 4\n"
    (tmp_path / "mmsa.toml").write_text(tiny_toml(text_model, "resnet10t", more))
    told = ("extract", "--engine", "ray", "--address", machines.address, "--workers", "1")

    def interrupt() -> None:
        wait_until(lambda: bool(machines.workers()))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert "Stopped. Finished work is kept" in mmsa(tmp_path, *told, code=130).stderr
    thread.join()
    wait_until(lambda: not machines.workers())
    result = mmsa(tmp_path, *told, "--json")
    assert "Ray: the cluster at" in result.stderr
    assert {record["modality"] for record in json.loads(result.stdout)} == {"text", "image"}
    mmsa(tmp_path, "extract", "--cache", "plain")
    assert rows_in(tmp_path / "cache") == rows_in(tmp_path / "plain") != {}


def test_a_cluster_that_is_started_for_a_command_needs_no_home_and_prints_no_results() -> None:
    command = """
from mmsa_cache.native.ray_cluster import ray_cluster
with ray_cluster("local") as ray:
    @ray.remote(max_restarts=0)
    class Dying:
        def die(self):
            import os
            print("to nobody")
            os._exit(1)
    try:
        ray.get(Dying.remote().die.remote())
    except ray.exceptions.RayActorError:
        print(len(ray.nodes()))
"""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", command],
        env=environ | {"HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr
    assert re.fullmatch(r"Ray: started here for this command, \d+ CPUs, \d+ GPUs\.\n", ended.stderr)


def test_a_cluster_that_this_user_runs_is_found(machines: RayMachines) -> None:
    assert ray_cluster_module._own_cluster() == machines.address


class Process:
    """What psutil tells of a process that says it is one of a cluster."""

    def __init__(self, started: float, user: int, *command: str) -> None:
        self.started, self.user, self.command = started, user, command

    def cmdline(self) -> list[str]:
        return [*self.command]

    def uids(self) -> Any:
        return SimpleNamespace(effective=self.user)

    def create_time(self) -> float:
        return self.started


def test_a_cluster_of_another_user_is_not_taken_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its answers are unpickled: whoever can start a process here could run code."""
    me = os.geteuid()
    processes = [
        Process(9, me + 1, "/home/them/raylet", "--gcs-address=10.0.0.1:1"),
        Process(8, me, "grep", "raylet --gcs-address=10.0.0.2:1"),
        Process(7, me, "raylet"),
        Process(7, me),
    ]
    monkeypatch.setattr("psutil.process_iter", lambda: processes)
    assert ray_cluster_module._own_cluster() is None
    assert "a cluster of another user is not taken unless --address" in capsys.readouterr().err
    processes.append(Process(1, me, "/opt/raylet", "--port=1", "--gcs-address=10.0.0.3:1"))
    processes.append(Process(2, me, "/opt/raylet", "--gcs-address=10.0.0.4:1"))
    assert ray_cluster_module._own_cluster() == "10.0.0.4:1"


def test_addresses_that_lead_nowhere_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, error, words in (
        ("127.0.0.1:1", DeviceError, r"There is no Ray cluster at 127\.0\.0\.1:1"),
        ("ray://127.0.0.1:10001", SettingsError, "is of Ray's client"),
        ("here", SettingsError, "--address here is none"),
        ("127.0.0.1:99999999999999999999", SettingsError, r"--address 127\.0\.0\.1:9+ is none"),
    ):
        with pytest.raises(error, match=words), ray_cluster(address):
            pass
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(DeviceError, match=r"no Ray cluster at 127\.0\.0\.1:1"), ray_cluster():
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"needs the package ray"), ray_cluster("local"):
        pass
