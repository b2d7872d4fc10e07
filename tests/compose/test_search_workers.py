"""How many workers a search has, on which devices, and how long it would take there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
import torch

from fuse.figures.records import EpochRecord
from fuse.search.pool import start_process
from mmsa_cache.compose.search import dry_run, workers
from mmsa_cache.compose.search.workers import local_workers
from mmsa_cache.native import processes
from tests.support.fake_search import EPOCHS, make_study

ALL, FIRST, CPU = torch.device("cuda"), torch.device("cuda", 1), torch.device("cpu")
Machine = Callable[[int, int, Mapping[str, str] | None], list[int]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine of so many cores and GPUs, and of what sharing them gives; returns where it
    is noted that sharing was asked for."""

    def make(cores: int, gpus: int, sharing: Mapping[str, str] | None) -> list[int]:
        asked = []

        @contextlib.contextmanager
        def shared_gpus() -> Iterator[Mapping[str, str] | None]:
            asked.append(1)
            yield sharing
            asked.append(0)

        monkeypatch.setattr(workers, "usable_cores", lambda: cores)
        monkeypatch.setattr(workers, "share_gpus", shared_gpus)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return asked

    return make


@pytest.mark.parametrize(
    ("kind", "count", "shares", "found"),
    [
        (CPU, None, False, {"cpu": 16}),
        (CPU, 3, False, {"cpu": 3}),
        (ALL, None, False, {"cuda:0": 1, "cuda:1": 1}),
        (ALL, None, True, {"cuda:0": 4, "cuda:1": 4}),
        (FIRST, None, False, {"cuda:1": 1}),
        (FIRST, None, True, {"cuda:1": 4}),
        (ALL, 3, False, {"cuda:0": 2, "cuda:1": 1}),
        (ALL, 5, True, {"cuda:0": 3, "cuda:1": 2}),
    ],
)
def test_a_gpu_has_one_worker_or_those_that_share_it(
    machine: Machine, kind: torch.device, count: int | None, shares: bool, found: dict[str, int]
) -> None:
    machine(16, 2, {} if shares else None)
    with local_workers(kind, count) as given:
        assert {of: list(given.devices).count(of) for of in given.devices} == found
        assert given.stacked == (kind != CPU)


def test_there_are_no_more_workers_than_cores_by_default(machine: Machine) -> None:
    machine(6, 2, {})
    with local_workers(ALL, None) as given:
        assert list(given.devices) == ["cuda:0", "cuda:1"] * 3


@pytest.mark.parametrize(("kind", "count", "cores"), [(CPU, 9, 4), (ALL, 2, 16), (ALL, None, 2)])
def test_sharing_is_not_asked_for_where_no_gpu_has_two_workers(
    machine: Machine, kind: torch.device, count: int | None, cores: int
) -> None:
    asked = machine(cores, 2, {})
    with local_workers(kind, count):
        assert asked == []


def test_workers_have_the_variables_and_this_process_has_not(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = machine(16, 1, {"SHARED": "yes"})
    seen = []

    class Pipe:
        def close(self) -> None:
            """Nothing."""

    def started(target: object, arguments: tuple[object, str], device: str, preload: str) -> None:
        seen.append((device, os.environ.get("SHARED")))

    monkeypatch.setattr(processes, "start_process", started)
    with local_workers(ALL, None) as given:
        assert isinstance(given.start, partial)
        assert given.start.func is start_process
        given.start(Pipe(), "cuda:0")  # type: ignore[arg-type]
        given.start(Pipe(), "cpu")  # type: ignore[arg-type]
        assert asked == [1]
    assert asked == [1, 0]
    assert seen == [("cuda:0", "yes"), ("cpu", None)]
    assert "SHARED" not in os.environ


@pytest.mark.parametrize("members", [1, 3])
def test_a_dry_run_times_epochs_of_all_folds_at_work(
    monkeypatch: pytest.MonkeyPatch, members: int
) -> None:
    clock, reported = [0.0], []

    def fit_group(
        setting: Any, bank: Any, tasks: Any, *, names: Any, on_epoch: Callable[[EpochRecord], None]
    ) -> None:
        clock[0] = 10.0  # the models are made
        for epoch in range(1, setting.epochs + 1):
            clock[0] += 2
            for member in range(1, len(tasks) + 1):
                reported.append((epoch, member))
                on_epoch(EpochRecord(member=member, epoch=epoch, loss=1, learning_rate=1))

    monkeypatch.setattr(dry_run, "fit_group", fit_group)
    monkeypatch.setattr(dry_run.time, "monotonic", lambda: clock[0])
    tasks: Any = [None] * members
    seconds, measured = dry_run._time_epochs(make_study(), "a bank", tasks, ("a", "b"))  # type: ignore[arg-type]
    assert seconds == 12 + 2 * (EPOCHS - 1)
    assert measured == "3 epochs of concat"
    assert reported[-1] == (3, members)
