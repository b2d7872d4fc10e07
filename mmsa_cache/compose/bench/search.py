"""``mmsa bench search``: a search by N workers against the same trials by one."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import psutil
import torch

from fuse.search import search as engine
from fuse.search.database import read_studies
from fuse.search.pool import TrainingData, WorkerOptions
from fuse.search.search import SearchResult
from fuse.search.study import StudyConfig
from fuse.search.trial_record import Trial
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.native.cores import usable_cores

from ..search.search import STUDIES
from ..search.studies import load_study
from ..search.view import watch
from ..search.workers import local_workers, training_data
from ..session.session import Session
from .cost import sampling

_SAMPLE_SECONDS = 0.5


@dataclass(slots=True)
class PeakMemory:
    """Peak memory of this process and its children together, in bytes."""

    peak_rss_bytes: int = 0
    """Sum of proportional set sizes: shared pages count once."""
    peak_rss_summed_bytes: int = 0
    """Sum of resident set sizes: shared pages count for each process."""

    def sample(self) -> None:
        """Updates the peaks with the present memory."""
        shared = summed = 0
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # the process has ended
                memory = process.memory_full_info()
                shared += getattr(memory, "pss", memory.rss)  # only Linux has pss
                summed += memory.rss
        self.peak_rss_bytes = max(self.peak_rss_bytes, shared)
        self.peak_rss_summed_bytes = max(self.peak_rss_summed_bytes, summed)


@dataclass(frozen=True, slots=True)
class _MeasuredSearch:
    """One search in a fresh database."""

    result: SearchResult
    trials: list[Trial]
    seconds: float
    cpu_seconds: float
    """Unlike `seconds`, independent of other programs on the machine."""
    memory: PeakMemory


def bench_search(
    session: Session, name: str, trials: int, workers: int | None
) -> dict[str, float | str]:
    """Measures a search by N workers and one by one worker, each in a fresh database.

    Args:
        session: The session.
        name: The study.
        trials: Finished trials of each search.
        workers: N; None: see `worker_devices`.

    Returns:
        The measurements by name; times in seconds.
    """
    study = load_study(session, name)
    split, pairs = study.protocol.split, study.encoder_pairs()
    with (
        local_workers(session.device, workers) as all_workers,
        training_data(session, split, pairs, study.derived_names(), STUDIES) as data,
    ):
        many = _run_search(study, data, trials, all_workers)
        # The same trials are queued, and pruned by the same rule: the work is nearly the same.
        one_worker = replace(all_workers, devices=all_workers.devices[:1])
        one = _run_search(study, data, trials, one_worker, many.trials)
    return {
        "study": name,
        "trials": trials,
        "workers": len(all_workers.devices),
        "seconds": many.seconds,
        "cpu_seconds": many.cpu_seconds,
        **asdict(many.memory),
        "overhead_share": many.result.overhead_share,
        "pruned": many.result.trials["pruned"],
        "seconds_one_worker": one.seconds,
        "cpu_seconds_one_worker": one.cpu_seconds,
        "ratio_workers": one.seconds / many.seconds,
        "cores": usable_cores(),
        "load": psutil.getloadavg()[0],
        "device": torch.cuda.get_device_name(0)
        if all_workers.stacked
        else platform.processor() or "cpu",
        "torch": torch.__version__,
    }


def _run_search(
    study: StudyConfig,
    data: TrainingData,
    trials: int,
    workers: WorkerOptions,
    queued: Sequence[Trial] = (),
) -> _MeasuredSearch:
    started, cpu_before = time.monotonic(), _cpu_seconds()
    memory = PeakMemory()
    with (
        temporary_folder() as folder,
        sampling(memory.sample, _SAMPLE_SECONDS),
        watch(f"{study.name}, {len(workers.devices)} worker(s)") as show,
    ):
        database = folder / "studies.db"
        result = engine.search(
            study, data, trials, storage=database, workers=workers, on_change=show, queued=queued
        )
        seconds, cpu_seconds = time.monotonic() - started, _cpu_seconds() - cpu_before
        return _MeasuredSearch(
            result, read_studies(database)[0].trials, seconds, cpu_seconds, memory
        )


def _cpu_seconds() -> float:
    """Processor time of this process and its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
