"""``mmsa bench search``."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial

from fuse.search import search as engine
from fuse.search.records import read_records
from fuse.search.study_file import find_study, read_study
from mmsa_cache.config.settings import Settings
from mmsa_cache.native.cores import usable_cores

from .search import STUDIES, grid_sides
from .search_view import watch
from .workers import devices_of, prepared

_SECONDS_BETWEEN_LOOKS = 0.5


def bench_search(settings: Settings, name: str, trials: int, workers: int | None) -> dict[str, Any]:
    """Measures a search by N workers against the same trials by one, each in a fresh database.

    Args:
        settings: The command's settings.
        name: The study.
        trials: Finished trials of each run.
        workers: N; None takes one a usable core, or one a GPU.
    """
    study = read_study(find_study(name))
    devices = devices_of(settings.device, workers)
    figures: dict[str, Any] = {}
    queued: list[FrozenTrial] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        prepared(settings, study.encoder_pairs(), grid_sides(study), STUDIES) as ready,
    ):
        for key, used in (("seconds", devices), ("seconds_one_worker", devices[:1])):
            database = Path(folder) / key / "studies.db"
            started, used_before = time.monotonic(), _cpu_seconds()
            with _memory() as peak, watch(f"{name}, {len(used)} worker(s)") as progress:
                outcome = engine.search(
                    # Queued trials are given up by the same rule, so the work is nearly the same.
                    study,
                    trials=trials,
                    seed=settings.seed,
                    storage=database,
                    devices=used,
                    on_change=progress,
                    queued=queued,
                    **ready,
                )
            figures[key] = time.monotonic() - started
            # On a machine that others use too, this says what the work itself took.
            figures[f"cpu_{key}"] = _cpu_seconds() - used_before
            if key == "seconds":
                figures |= {f"{name}_bytes": value for name, value in peak.items()}
                figures["overhead_share"] = outcome.record["overhead_share"]
                figures["pruned"] = outcome.record["trials"]["pruned"]
                queued = read_records(database)[0].trials
    on_gpu = devices[0] != "cpu"
    return {
        "study": name,
        "trials": trials,
        "workers": len(devices),
        **figures,
        "ratio_workers": figures["seconds_one_worker"] / figures["seconds"],
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name(0) if on_gpu else platform.processor() or "cpu",
        "torch": torch.__version__,
    }


@contextlib.contextmanager
def _memory() -> Iterator[dict[str, int]]:
    """Peak memory of this process and its children together while the block runs.

    ``peak_rss`` counts shared pages once (the sum of proportional set sizes); ``peak_rss_summed``
    counts them for every process that maps them.
    """
    peak = {"peak_rss": 0, "peak_rss_summed": 0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            sizes = [_sizes(pid) for pid in (os.getpid(), *_children(os.getpid()))]
            for place, key in enumerate(peak):
                peak[key] = max(peak[key], sum(size[place] for size in sizes))

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


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _sizes(pid: int) -> tuple[int, int]:
    """Proportional and resident set size of a process, bytes; zeros if it has gone."""
    found = {"Pss": 0, "Rss": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            key, value, *_ = line.split()
            if key.rstrip(":") in found:
                found[key.rstrip(":")] = 1024 * int(value)
    return found["Pss"], found["Rss"]
