"""Ray actors: the bytes of a plain run, whatever happens to them, their machines or the driver."""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from extract.crew import ray_crew
from extract.crew.driver import drive
from extract.crew.ray_crew import RayCrew
from extract.plan import Share
from mmsa_cache.errors import DataError, DeviceError, SettingsError
from mmsa_cache.native.ray_cluster import ray_cluster
from mmsa_cache.version import __version__
from tests.support.crew import CompanySource, plain_rows, plan_of
from tests.support.ray_actor import LightWorker, Number, Told
from tests.support.ray_machines import BATCH, WINDOW, RayMachines, kill, start_driver, wait_until
from tests.support.rows import Rows, claimed, row_bytes
from tests.support.tally import Tally

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
            lambda: machines.replace(1),
            drivers[0].kill,
        ):
            fault()
            more = sealed(tmp_path) + 2
            wait_until(lambda more=more: sealed(tmp_path) >= more)
        ends_well(drivers[1])
    assert row_bytes(tmp_path) == plain
    wait_until(lambda: not machines.workers())


@pytest.mark.faults
def test_thirty_kills_at_random_moments_lose_nothing(
    machines: RayMachines, plain: Rows, tmp_path: Path, tally: Tally
) -> None:
    chance = random.Random(0)
    counts = {"worker": 0, "machine": 0, "driver": 0}
    for number in itertools.count():
        root = tmp_path / str(number)
        with two_drivers(machines, root) as drivers:
            while any(driver.poll() is None for driver in drivers) and sum(counts.values()) < 30:
                try:
                    wait_until(lambda root=root: sealed(root) > 0 and bool(machines.workers()), 20)
                except AssertionError:
                    break
                what = chance.choices(list(counts), [4, 1, 1])[0]
                counts[what] += 1
                if what == "worker":
                    kill(chance.choice(machines.workers()))
                elif what == "machine":
                    machines.replace(chance.randrange(2))
                else:
                    place = chance.randrange(2)
                    drivers[place].kill()
                    drivers[place].communicate()
                    drivers[place] = start_driver(root, machines.address, 2, ROWS, place)
            for driver in drivers:
                ends_well(driver)
        assert row_bytes(root) == plain
        if sum(counts.values()) >= 30:
            break
    said = ", ".join(f"{count} of a {what}" for what, count in counts.items())
    tally("kill -9 of an extraction on Ray", 30, f"{said}: every row once, {number + 1} stores")


def test_one_that_kills_its_worker_is_listed_and_the_rest_is_there(
    machines: RayMachines, plain: Rows, tmp_path: Path
) -> None:
    source = CompanySource(killing=(100,), bad=(50,))
    with claimed(tmp_path) as writer:
        crew = RayCrew(source, [writer.sealer], machines.address, 1, gpu=False, batch_size=BATCH)
        job = Share(plan_of(ROWS), writer, name="train text", notice=(said := []).append)
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
    assert (crew.workers, crew.idle) == (1, 2)
    crew.submit(Number(1))
    crew.submit(Number(2))
    assert crew.idle == 0
    crew.forget(1)
    (said,) = heard(crew)
    assert (said.piece, crew.idle) == (2, 2)
    kill(said.pid)  # while it has nothing to do: Ray starts it again
    wait_until(lambda: machines.workers("LightWorker") not in ([], [said.pid]))
    crew.submit(Number(3))
    crew.submit(Number(4))
    assert [one.piece for one in heard(crew)] == [3]
    assert [one.piece for one in heard(crew)] == [4]
    crew.submit(Number(5))
    crew.submit(Number(6))
    crew.forget(6)  # it waits: the worker goes on
    assert (crew.workers, crew.idle) == (1, 1)
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


def test_addresses_that_lead_nowhere_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, error, words in (
        ("127.0.0.1:1", DeviceError, r"There is no Ray cluster at 127\.0\.0\.1:1"),
        ("ray://127.0.0.1:10001", SettingsError, "is of Ray's client"),
        ("here", SettingsError, "--address here is none"),
    ):
        with pytest.raises(error, match=words), ray_cluster(address):
            pass
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(DeviceError, match=r"no Ray cluster at 127\.0\.0\.1:1"), ray_cluster():
        pass
