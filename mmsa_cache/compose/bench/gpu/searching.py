"""Step 4: the time of a search, and its utilization of the device."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from fuse.search.pool import TrainingData
from fuse.search.progress import SearchProgress
from fuse.search.search import search
from fuse.search.study_file import find_study, read_study
from mmsa_cache.compose.search.workers import local_workers
from mmsa_cache.data.protocol import Protocol
from mmsa_cache.names import DEFAULT_ENCODER
from mmsa_cache.store.identity import Origin

from .bench import CLASSES, Bench
from .probes import measure_utilization
from .stores import BenchStore

TRIALS = 200
TARGET_SECONDS = {"pooled": 60.0, "default": 180.0}
"""Of `TRIALS` trials of a study."""


class _OutOfTimeError(Exception):
    """The search has reached its time limit."""


@dataclass(slots=True)
class _Stopwatch:
    """Notes the times of a search's progress, and stops it after a time limit.

    Attributes:
        first: Time of the first message; 0 before it.
        last: Time at which the last trial finished.
        finished: Finished trials.
    """

    limit: float
    """Seconds from the first message."""
    first: float = 0.0
    last: float = 0.0
    finished: int = 0

    def __call__(self, progress: SearchProgress) -> None:
        now = time.monotonic()
        self.first = self.first or now
        if progress.finished > self.finished:
            self.finished, self.last = progress.finished, now
        if now - self.first > self.limit and self.finished:
            raise _OutOfTimeError


def run(bench: Bench) -> None:
    """Measures both studies; ``pooled`` on the real features, if given."""
    real = bench.real
    for name, store in (("pooled", real or bench.generated), ("default", bench.generated)):
        kind = "real pooled features" if store is real else "generated features"
        with bench.log.attempt(f"search, study {name}"):
            _measure_search(bench, name, store, kind)


def _measure_search(bench: Bench, name: str, store: BenchStore, kind: str) -> None:
    log, sizes = bench.log, bench.sizes
    bank = store.bank(1)
    pools = {"text": bank.text.pools, "image": bank.image.pools}
    study = read_study(find_study(name)).resolved(
        lambda modality, encoder: pools[modality] if encoder == DEFAULT_ENCODER else ()
    )
    protocol = Protocol(outer="grouped", folds=sizes.folds)
    study = study.model_copy(update={"protocol": protocol})
    origin = Origin(text=name, image=name, classes=tuple(CLASSES))
    data = TrainingData(store.source(), store.labels, store.groups, origin)
    cuda = bench.device.type == "cuda"
    device = torch.device("cuda", 0) if cuda else bench.device
    stopwatch, started = _Stopwatch(sizes.search_seconds), time.monotonic()
    with (
        local_workers(device, None if cuda else 1) as workers,
        measure_utilization(bench.device) as utilization,
    ):
        try:
            result = search(
                study,
                data,
                sizes.trials,
                storage=bench.folder / f"{name}.db",
                workers=workers,
                on_change=stopwatch,
            )
            log.add(f"{name}: outside training", result.overhead_share)
            log.add(f"{name}: trials that failed", result.trials["fail"], at_most=0)
        except _OutOfTimeError:
            log.add(f"{name}: broken off after", time.monotonic() - stopwatch.first, "s")
    finished, start_up = stopwatch.finished, stopwatch.first - started
    trial_seconds = (stopwatch.last - stopwatch.first) / finished
    log.add(f"{name}: trials finished, {sizes.folds} folds, {kind}", finished)
    log.add(f"{name}: before the first message of a worker", start_up, "s")
    log.add(f"{name}: seconds a trial, {len(workers.devices)} worker(s)", trial_seconds, "s")
    what = f"{name}: {TRIALS} trials{'' if finished == TRIALS else ', extrapolated'}"
    log.add(what, start_up + TRIALS * trial_seconds, "s", at_most=TARGET_SECONDS[name])
    with log.attempt(f"{name}: device busy"):
        log.add(f"{name}: device busy", utilization.mean)
        log.add("  over time", utilization.over_time())
