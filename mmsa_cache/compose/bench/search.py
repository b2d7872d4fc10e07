"""``mmsa bench search``."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
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

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(slots=True)
class PeakMemory:
    """Peak memory of this process and its children together, bytes."""

    peak_rss_bytes: int = 0
    """Shared pages count once (the sum of proportional set sizes)."""
    peak_rss_summed_bytes: int = 0
    """Shared pages count for every process that maps them."""

    def look(self) -> None:
        """Takes in what the processes use now."""
        shared = summed = 0
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has ended
                memory = process.memory_full_info()
                shared += getattr(memory, "pss", memory.rss)  # Linux alone has the former
                summed += memory.rss
        self.peak_rss_bytes = max(self.peak_rss_bytes, shared)
        self.peak_rss_summed_bytes = max(self.peak_rss_summed_bytes, summed)


@dataclass(frozen=True, slots=True)
class _Timed:
    """One search in a fresh database."""

    result: SearchResult
    trials: list[Trial]
    seconds: float
    cpu_seconds: float
    """On a machine that others use too, this says what the work itself took."""
    memory: PeakMemory


def bench_search(
    session: Session, name: str, trials: int, workers: int | None
) -> dict[str, float | str]:
    """Measures a search by N workers against the same trials by one, each in a fresh database.

    Args:
        session: The command's.
        name: The study.
        trials: Finished trials of each run.
        workers: N; None: see `worker_devices`.

    Returns:
        The figures by name, those in time in seconds.
    """
    study = load_study(session, name)
    split, pairs = study.protocol.split, study.encoder_pairs()
    with (
        local_workers(session.device, workers) as every,
        training_data(session, split, pairs, study.grid_sides(), STUDIES) as data,
    ):
        many = _timed(study, data, trials, every)
        # Queued trials are pruned by the same rule, so the work is nearly the same.
        first = replace(every, devices=every.devices[:1])
        one = _timed(study, data, trials, first, many.trials)
    return {
        "study": name,
        "trials": trials,
        "workers": len(every.devices),
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
        "device": torch.cuda.get_device_name(0) if every.stacked else platform.processor() or "cpu",
        "torch": torch.__version__,
    }


def _timed(
    study: StudyConfig,
    data: TrainingData,
    trials: int,
    workers: WorkerOptions,
    queued: Sequence[Trial] = (),
) -> _Timed:
    started, used_before = time.monotonic(), _cpu_seconds()
    with (
        temporary_folder() as folder,
        _peak_memory() as memory,
        watch(f"{study.name}, {len(workers.devices)} worker(s)") as show,
    ):
        database = folder / "studies.db"
        result = engine.search(
            study, data, trials, storage=database, workers=workers, on_change=show, queued=queued
        )
        seconds, used = time.monotonic() - started, _cpu_seconds() - used_before
        return _Timed(result, read_studies(database)[0].trials, seconds, used, memory)


@contextlib.contextmanager
def _peak_memory() -> Iterator[PeakMemory]:
    """Looks at the memory now and then while the block runs."""
    peak, ended = PeakMemory(), threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            peak.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _cpu_seconds() -> float:
    """Processor time of this process and its ended children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
