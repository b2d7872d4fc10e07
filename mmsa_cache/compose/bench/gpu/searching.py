"""Step 4: how long a search takes, and how busy it keeps the device."""

from __future__ import annotations

import time

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
from .probes import Busy
from .stores import BenchStore

TRIALS = 200
WANTED = {"pooled": 60.0, "default": 180.0}
"""Seconds that 200 trials of a study should take."""


class _OutOfTimeError(Exception):
    """The search has used up its share of the step."""


def run(bench: Bench) -> None:
    """Runs both studies; ``pooled`` on the real features where they were given."""
    real = bench.real
    for name, store in (("pooled", real or bench.generated), ("default", bench.generated)):
        kind = "real pooled features" if store is real else "generated features"
        with bench.figures.attempt(f"search, study {name}"):
            _search(bench, name, store, kind)


def _search(bench: Bench, name: str, store: BenchStore, kind: str) -> None:
    figures, sizes = bench.figures, bench.sizes
    bank = store.bank(1)
    pools = {"text": bank.text.pools, "image": bank.image.pools}
    study = read_study(find_study(name)).resolved(
        lambda modality, encoder: pools[modality] if encoder == DEFAULT_ENCODER else ()
    )
    protocol = Protocol(outer="grouped", folds=sizes.folds)
    study = study.model_copy(update={"protocol": protocol})
    origin = Origin(text=name, image=name, classes=tuple(CLASSES))
    data = TrainingData(store.source(), store.labels, store.groups, origin)
    first = last = 0.0
    finished = 0

    def on_change(now: SearchProgress) -> None:
        nonlocal first, last, finished
        moment = time.monotonic()
        first = first or moment
        if now.finished > finished:
            finished, last = now.finished, moment
        if moment - first > sizes.search_seconds and finished:
            raise _OutOfTimeError

    cuda = bench.device.type == "cuda"
    device = torch.device("cuda", 0) if cuda else bench.device
    started = time.monotonic()
    with local_workers(device, None if cuda else 1) as workers, Busy(bench.device) as busy:
        try:
            result = search(
                study,
                data,
                sizes.trials,
                storage=bench.folder / f"{name}.db",
                workers=workers,
                on_change=on_change,
            )
            figures.add(f"{name}: outside training", result.overhead_share)
            figures.add(f"{name}: trials that failed", result.trials["fail"], at_most=0)
        except _OutOfTimeError:
            figures.add(f"{name}: broken off after", time.monotonic() - first, "s")
    each = (last - first) / finished
    figures.add(f"{name}: trials finished, {sizes.folds} folds, {kind}", finished)
    figures.add(f"{name}: before the first message of a worker", first - started, "s")
    figures.add(f"{name}: seconds a trial, {len(workers.devices)} worker(s)", each, "s")
    what = f"{name}: {TRIALS} trials{'' if finished == TRIALS else ', extrapolated'}"
    figures.add(what, first - started + TRIALS * each, "s", at_most=WANTED[name])
    with figures.attempt(f"{name}: device busy"):
        figures.add(f"{name}: device busy", busy.share)
        figures.add("  over time", busy.over_time())
