"""Step 3: how fast training is, and how often it makes the device or the host wait."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import torch

from fuse.bench import bench_epochs, bench_folds, bench_steps
from fuse.setting import Setting
from fuse.training.task import Task
from fuse.training.trainer import fit_group
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.native.timing import time_call

from .bench import CLASSES, Bench
from .probes import count_calls, synchronisations

EPOCH = 10.0
"""How many times as fast as a textbook loop a pooled epoch should be."""
FOLDS = 1.6
"""How much longer than one fold five should take."""
OPENING = 0.7
"""Share of a plain copy's rate at which a store should come to the device."""
_COUNTED_STEPS = 8
_TOKENS = Setting(level="tokens", batch_size=128, keep="last", schedule="constant")
_TOKEN_SETTINGS = {
    "concat": _TOKENS,
    "attention_concat": replace(_TOKENS, fusion="attention_concat"),
    "encoder": replace(_TOKENS, fusion="encoder", layers=1, ffn=512),
}


def run(bench: Bench) -> None:
    """Measures on the generated features."""
    figures, device, rounds = bench.figures, bench.device, bench.sizes.rounds
    bank = bench.bank(device)
    with figures.attempt("pooled epoch"):
        found = bench_epochs(bank, CLASSES, rounds)
        figures.add("pooled epoch (concat, batch 32)", found["epoch_seconds"], "s")
        figures.add("pooled epoch, textbook loop", found["textbook_epoch_seconds"], "s")
        figures.add("pooled epoch against the textbook", found["ratio_textbook"], at_least=EPOCH)
    with figures.attempt("five folds"):
        folds = bench_folds(bank, CLASSES, rounds)
        figures.add("one fold, two epochs", folds["one_fold_seconds"], "s")
        figures.add("five folds, two epochs", folds["five_folds_seconds"], "s")
        figures.add("five folds against one", folds["ratio_five_folds"], at_most=FOLDS)
    for members, size in ((1, 1), (1, 8), (bench.sizes.members, 1)):
        with figures.attempt(f"a step of {members}, {size} a graph"):
            _step_times(bench, bank, members, size)
    pooled = Setting(keep="last", schedule="constant", variants=False, **bench.sizes.model)
    for members in (1, bench.sizes.members):
        with figures.attempt(f"a step of {members}"):
            _step(bench, bank, pooled, members)
    for name, setting in _TOKEN_SETTINGS.items():
        with figures.attempt(f"token-level epoch of {name}"):
            _token_epoch(bench, bank, name, replace(setting, **bench.sizes.model))
    with figures.attempt("store to bank"):
        _opening(bench)


def _step_times(bench: Bench, bank: FeatureBank, members: int, size: int) -> None:
    """Seconds of a pooled step, so many of them a graph."""
    with mock.patch("fuse.training.graphs.STEPS_A_GRAPH", size):
        found = bench_steps(bank, CLASSES, members)
    what = f"pooled step of {members} member(s), {size} a graph"
    bench.figures.add(what, found["step_seconds"] * 1e6, "us")
    bench.figures.add("  kernel by kernel", found["plain_step_seconds"] * 1e6, "us")
    if bench.device.type == "cuda":
        bench.figures.check("  as a graph", found["captured"], "captured")


def _opening(bench: Bench) -> None:
    """A store to the device, against reading its bytes and copying them there."""
    files = [path for folder in bench.generated.folders for path in sorted(folder.glob("*.h5"))]
    size = sum(path.stat().st_size for path in files) / 1e9
    bench.bank(bench.device)  # hashes every shard, once

    def copy() -> None:
        for path in files:
            torch.frombuffer(
                bytearray(read_regular(path, path.stat().st_size)), dtype=torch.uint8
            ).to(bench.device)

    plain = time_call(copy, bench.device)
    opened = time_call(lambda: bench.bank(bench.device), bench.device)
    bench.figures.add("store to bank on the device", size / opened, "GB/s")
    bench.figures.add("  read and copied plainly", size / plain, "GB/s")
    bench.figures.add("store to bank against the plain copy", plain / opened, at_least=OPENING)


def _step(bench: Bench, bank: FeatureBank, setting: Setting, members: int) -> None:
    """Launches and waits of a step: two epochs of a few steps less one, divided by the steps."""
    rows = np.arange(min(_COUNTED_STEPS * setting.batch_size, len(bank)))
    tasks = [Task(rows, rows[: setting.batch_size], seed) for seed in range(members)]
    steps = -(-len(rows) // setting.batch_size)
    one, two = (
        partial(fit_group, replace(setting, epochs=epochs), bank, tasks, names=CLASSES)
        for epochs in (1, 2)
    )
    one()
    short, long = count_calls(one, bench.device), count_calls(two, bench.device)
    synchronised = synchronisations(two, bench.device) - synchronisations(one, bench.device)
    for what, more in (
        ("launches", long.launches - short.launches),
        ("waits of the CUDA runtime", long.waits - short.waits),
        ("synchronising operations", synchronised),
    ):
        figure = f"{what} a step, {members} member(s), with the epoch's scores over {steps} steps"
        bench.figures.add(figure, more / steps)


def _token_epoch(bench: Bench, bank: FeatureBank, name: str, setting: Setting) -> None:
    """Seconds an epoch of one member and of several at the token level."""
    every = np.arange(len(bank))
    for members in (1, bench.sizes.members):
        tasks = [
            Task(every[every % 5 != fold], every[every % 5 == fold], fold)
            for fold in range(members)
        ]
        one, two = (
            partial(fit_group, replace(setting, epochs=epochs), bank, tasks, names=CLASSES)
            for epochs in (1, 2)
        )
        one()
        seconds = time_call(two, bench.device) - time_call(one, bench.device)
        bench.figures.add(f"token-level epoch of {name}, {members} member(s)", seconds, "s")
