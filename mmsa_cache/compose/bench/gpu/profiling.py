"""Step 6: what the host and the device spend their time on."""

from __future__ import annotations

from functools import partial

import numpy as np

from extract.bench import run_end_to_end
from extract.plan import read_rows
from fuse.setting import Setting
from fuse.training.task import Task
from fuse.training.trainer import fit_group

from .bench import CLASSES, Bench, evenly
from .probes import most_expensive, profiled


def run(bench: Bench) -> None:
    """The most expensive operations of one extraction batch and of one epoch of training."""
    posts = evenly(bench.samples(), bench.sizes.batch_size)
    readers = bench.readers()
    for name, spec in bench.specs(bench.compute).items():
        with bench.figures.attempt(f"profile of a batch of {name}"):
            encoder = spec.load(bench.device)
            inputs = read_rows(bench.rows(name, posts), readers[name], encoder).inputs
            encoder.encode(inputs)
            found = profiled(partial(encoder.encode, inputs), bench.device)
            _keep(bench, f"a batch of {name}", found)
            few = bench.rows(name, evenly(bench.samples(), 4 * bench.sizes.large_batch))
            work = partial(
                run_end_to_end,
                {name: few},
                readers,
                {name: encoder},
                bench.device,
                shard_rows=bench.sizes.large_batch,
                batch_size=bench.sizes.large_batch,
            )
            work()
            # CUDA's functions are seen in whichever thread they are called.
            _keep(bench, f"an extraction of {name}", profiled(work, bench.device))
    bank = bench.bank(bench.device, bench.sizes.small_samples)
    every = np.arange(len(bank))
    setting = Setting(
        epochs=1, keep="last", schedule="constant", variants=False, **bench.sizes.model
    )
    for members in (1, bench.sizes.members):
        with bench.figures.attempt(f"profile of training, {members} member(s)"):
            tasks = [Task(every, every[:32], seed) for seed in range(members)]
            train = partial(fit_group, setting, bank, tasks, names=CLASSES)
            train()
            found = profiled(train, bench.device)
            _keep(bench, f"an epoch of {len(every)} samples, {members} member(s)", found)


def _keep(bench: Bench, what: str, found: object) -> None:
    for where, lines in most_expensive(found, bench.device).items():
        bench.figures.add(f"{what}: most of the {where}'s time", lines)
