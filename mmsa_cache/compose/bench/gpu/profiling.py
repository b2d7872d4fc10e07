"""Step 6: profiles of host and device."""

from __future__ import annotations

from functools import partial

import numpy as np

from extract.bench import run_end_to_end
from extract.plan import read_rows
from fuse.setting import Setting
from fuse.training.task import Task
from fuse.training.trainer import fit_group

from ..extract import spread_samples
from .bench import CLASSES, Bench
from .probes import most_expensive, run_profiled


def run(bench: Bench) -> None:
    """Profiles a batch, an extraction and an epoch of training."""
    posts = spread_samples(bench.samples(), bench.sizes.batch_size)
    readers = bench.readers()
    for name, spec in bench.specs(bench.compute).items():
        with bench.log.attempt(f"profile of a batch of {name}"):
            encoder = spec.load(bench.device)
            inputs = read_rows(bench.rows(name, posts), readers[name], encoder).inputs
            encoder.encode(inputs)
            encode = partial(encoder.encode, inputs)
            _log(bench, f"a batch of {name}", run_profiled(encode, bench.device))
            plan = bench.rows(name, spread_samples(bench.samples(), 4 * bench.sizes.large_batch))
            work = partial(
                run_end_to_end,
                {name: plan},
                readers,
                {name: encoder},
                bench.device,
                shard_rows=bench.sizes.large_batch,
                batch_size=bench.sizes.large_batch,
            )
            work()
            # CUDA calls are seen in all threads.
            _log(bench, f"an extraction of {name}", run_profiled(work, bench.device))
    bank = bench.bank(bench.device, bench.sizes.small_samples)
    rows = np.arange(len(bank))
    setting = Setting(
        epochs=1, keep="last", schedule="constant", variants=False, **bench.sizes.model
    )
    for members in (1, bench.sizes.members):
        with bench.log.attempt(f"profile of training, {members} member(s)"):
            tasks = [Task(rows, rows[:32], seed) for seed in range(members)]
            train = partial(fit_group, setting, bank, tasks, names=CLASSES)
            train()
            what = f"an epoch of {len(rows)} samples, {members} member(s)"
            _log(bench, what, run_profiled(train, bench.device))


def _log(bench: Bench, what: str, profile: object) -> None:
    for where, lines in most_expensive(profile, bench.device).items():
        bench.log.add(f"{what}: most of the {where}'s time", lines)
