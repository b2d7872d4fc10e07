"""Searches on a Ray cluster: exact counts under kills, the same choice, features fetched once."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fuse.search.pool import WorkerOptions
from fuse.search.progress import SearchProgress
from fuse.search.study import StudyConfig
from mmsa_cache.compose.search import workers as workers_module
from mmsa_cache.features.source import BankSource
from mmsa_cache.native.ray_cluster import ray_cluster
from mmsa_cache.version import __version__
from tests.support.bank_sources import WANTED, make_bank
from tests.support.fake_search import make_study, run, start_thread
from tests.support.opened import opened
from tests.support.ray_machines import RayMachines, kill, wait_until
from tests.support.small_work import QUICK, call, call_json, make_work
from tests.support.study_records import figures, states
from tests.support.tally import Tally

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fuse.search.ray_pool import RayProcess
from fuse.search.ray_source import RaySource
from fuse.search.ray_worker import SearchWorker


@pytest.fixture(scope="module")
def machines() -> Iterator[RayMachines]:
    """A head without workers, where the searches run, and three machines of a core each."""
    with RayMachines(3, cpus=1) as machines, ray_cluster(machines.address):
        yield machines


def queue_of(length: int) -> StudyConfig:
    """A study that has a trial in its queue for every one that is run."""
    chance = random.Random(0)
    queue = [
        {
            "learning_rate": 10 ** chance.uniform(-4, -1),
            "fusion": chance.choice(["concat", "encoder"]),
        }
        for _ in range(length)
    ]
    return make_study(queue=queue, fixed={"epochs": 2, "keep": "last"})


def on_ray(
    folder: Path,
    trials: int,
    study: StudyConfig,
    on_change: Callable[[SearchProgress], None],
    database: str = "ray.db",
) -> dict[str, Any]:
    options = {"study": study, "start": RayProcess, "devices": ["cpu"] * 3, "on_change": on_change}
    return run(folder / database, folder, trials, **options)


@pytest.mark.parametrize(
    ("trials", "apart"), [(20, 6), pytest.param(200, 12, marks=pytest.mark.faults)]
)
def test_trials_on_three_machines_under_kills_are_those_of_one_worker(
    machines: RayMachines, tmp_path: Path, trials: int, apart: int, tally: Tally
) -> None:
    study = queue_of(trials)
    chance = random.Random(1)
    kills = {"worker": 0, "machine": 0}
    next_at = apart

    def on_change(progress: SearchProgress) -> None:
        """Kills a worker now and then, of ten times once a machine, which comes back."""
        nonlocal next_at
        if progress.finished < next_at:
            return
        if sum(kills.values()) % 10 == 1:
            machines.replace(0)
            kills["machine"] += 1
        elif found := machines.workers("SearchWorker"):
            kill(chance.choice(found))
            kills["worker"] += 1
        next_at = progress.finished + apart

    record = on_ray(tmp_path, trials, study, on_change)
    one = run(tmp_path / "one.db", tmp_path, trials, study=study, start=start_thread)
    assert states(tmp_path / "ray.db") == {"COMPLETE": trials}, "not exactly as many as wanted"
    assert figures(tmp_path / "ray.db") == figures(tmp_path / "one.db")
    for key in ("trial", "inner_score", "outer_score", "cannot_be_told_apart"):
        assert record[key] == one[key]
    assert min(kills.values()) > 0
    wait_until(lambda: not machines.workers("SearchWorker"))
    tally(
        "kill -9 in a search on Ray",
        sum(kills.values()),
        f"{kills['worker']} workers, {kills['machine']} machines; {trials} of {trials} finished, "
        "none running, the choice of one worker",
    )


def test_features_are_fetched_once_by_every_machine_that_does_not_have_them(
    machines: RayMachines, tmp_path: Path
) -> None:
    import ray

    bank = make_bank(tmp_path / "store")
    source = RaySource.of(BankSource.of(bank, WANTED))
    folders = {Path(bank.text.name), Path(bank.image.name)}

    def everywhere() -> dict[str, Any]:
        nodes = [node.node_id for node in machines.nodes[:2]] * 2
        tasks = [
            ray.remote(opened)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            .remote(source, tmp_path / "keep")
            for node in nodes
        ]
        found = ray.get(tasks)
        assert found[: len(nodes) // 2] == found[len(nodes) // 2 :], "it was fetched again"
        assert {total for *_, total in found} == {float(bank.text.pooled.sum())}
        return {node: (names, files) for node, names, files, _ in found}

    for names, files in everywhere().values():
        assert names == {str(folder) for folder in folders}, "the same folder is seen everywhere"
        assert not files
    for folder in folders:  # another store lies at the same place now
        encoder = folder / "encoder.json"
        encoder.write_bytes(encoder.read_bytes() + b"\\n")
    there = everywhere()
    assert len(there) == 2
    for node, (names, files) in there.items():
        assert all(name.startswith(str(tmp_path / "keep" / node)) for name in names)
        assert len(files) == 2


def test_a_worker_with_another_mmsa_is_refused_by_name() -> None:
    said = pickle.loads(SearchWorker("cpu", "0.0.0").exchange(b""))
    assert f"has mmsa {__version__}, this machine 0.0.0" in said.reason


STUDY = """[protocol]
outer = "grouped"
folds = 2
[fixed]
epochs = 2
fusion = "concat"
image_dim = 16
[space]
text_dim = [8, 16, 32]
"""


PROGRAM = "from tests.support.fake_search import main; main()"


@pytest.mark.faults
def test_a_search_that_ends_ends_its_workers_and_not_the_cluster(
    machines: RayMachines, tmp_path: Path, tally: Tally
) -> None:
    numbers = {signal.SIGINT: 130, signal.SIGTERM: -signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}
    for number, code in numbers.items():
        folder = tmp_path / str(code)
        folder.mkdir()
        arguments = [folder / "s.db", folder, 8, 2, 0.2, machines.address]
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until(lambda f=folder: (f / "trainings.txt").exists())  # type: ignore[misc]
        os.killpg(process.pid, number)
        out, said = process.communicate(timeout=60)
        assert process.returncode == code, said.decode()
        assert not out
        assert b"Traceback" not in said
        wait_until(lambda: not machines.workers("SearchWorker"))
        on_ray(folder, 8, make_study(), lambda progress: None, "s.db")
        assert states(folder / "s.db") == {"COMPLETE": 8}
    tally("Ctrl-C, SIGTERM, SIGKILL of a search on Ray", 3, "no worker left, the cluster stays")


@pytest.mark.faults
@pytest.mark.usefixtures("machines")
def test_search_and_ablate_give_on_ray_what_they_give_here(
    tmp_path: Path, text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_work(tmp_path, text_model)
    (work / "studies").mkdir()
    (work / "studies" / "tiny.toml").write_text(STUDY)
    ray = ("--engine", "ray", "--workers", "2")
    search = ("search", "--study", "tiny", "--trials", "3")
    axes = ("ablate", "--axis", "text_dim=8,16", *QUICK[:6], *QUICK[8:])
    far = call_json(work, *search, *ray, "--name", "far")
    table = call_json(work, *axes, *ray)
    assert (far["workers"], table["workers"]) == (2, 2)
    assert table["device"] == "2 CPU cores of a Ray cluster"
    refused = call(work, *search, "--address", "127.0.0.1:1", code=2)
    assert "--engine ray" in refused
    monkeypatch.setattr(workers_module, "WorkerOptions", partial(WorkerOptions, start=start_thread))
    near = call_json(work, *search, "--workers", "1")
    assert far["trial"] == near["trial"]
    assert far["inner_units"] == pytest.approx(near["inner_units"], abs=1e-6)
    shutil.rmtree(work / "runs" / ".ablation")
    again = call_json(work, *axes, "--workers", "1")
    for one, other in zip(table["cells"], again["cells"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
