"""Step 3: the speed of training, and its launches and synchronisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

from .bench import CLASSES, Bench, fold_tasks
from .probes import count_calls, synchronisations

EPOCH = 10.0
"""Target speed of a pooled epoch, relative to a textbook loop."""
FOLDS = 1.6
"""Target time of five folds, relative to one."""
OPENING = 0.7
"""Target rate of opening a store, relative to a plain copy."""
_COUNTED_STEPS = 8
_TOKENS = Setting(level="tokens", batch_size=128, keep="last", schedule="constant")
_TOKEN_SETTINGS = {
    "concat": _TOKENS,
    "attention_concat": replace(_TOKENS, fusion="attention_concat"),
    "encoder": replace(_TOKENS, fusion="encoder", layers=1, ffn=512),
}


def run(bench: Bench) -> None:
    """Measures on the generated features."""
    log, device, rounds = bench.log, bench.device, bench.sizes.rounds
    bank = bench.bank(device)
    with log.attempt("pooled epoch"):
        epochs = bench_epochs(bank, CLASSES, rounds)
        log.add("pooled epoch (concat, batch 32)", epochs["epoch_seconds"], "s")
        log.add("pooled epoch, textbook loop", epochs["textbook_epoch_seconds"], "s")
        log.add("pooled epoch against the textbook", epochs["ratio_textbook"], at_least=EPOCH)
    with log.attempt("five folds"):
        folds = bench_folds(bank, CLASSES, rounds)
        log.add("one fold, two epochs", folds["one_fold_seconds"], "s")
        log.add("five folds, two epochs", folds["five_folds_seconds"], "s")
        log.add("five folds against one", folds["ratio_five_folds"], at_most=FOLDS)
    for members, size in ((1, 1), (1, 8), (bench.sizes.members, 1)):
        with log.attempt(f"a step of {members}, {size} a graph"):
            _time_steps(bench, bank, members, size)
    pooled = Setting(keep="last", schedule="constant", variants=False, **bench.sizes.model)
    for members in (1, bench.sizes.members):
        with log.attempt(f"a step of {members}"):
            _count_step_calls(bench, bank, pooled, members)
    for name, setting in _TOKEN_SETTINGS.items():
        with log.attempt(f"token-level epoch of {name}"):
            _time_token_epoch(bench, bank, name, replace(setting, **bench.sizes.model))
    with log.attempt("store to bank"):
        _compare_opening(bench)


def _time_steps(bench: Bench, bank: FeatureBank, members: int, size: int) -> None:
    """Times a pooled step, with ``size`` steps per graph."""
    with mock.patch("fuse.training.graphs.STEPS_A_GRAPH", size):
        steps = bench_steps(bank, CLASSES, members)
    what = f"pooled step of {members} member(s), {size} a graph"
    bench.log.add(what, steps["step_seconds"] * 1e6, "us")
    bench.log.add("  kernel by kernel", steps["plain_step_seconds"] * 1e6, "us")
    if bench.device.type == "cuda":
        bench.log.check("  as a graph", steps["captured"], "captured")


def _compare_opening(bench: Bench) -> None:
    """Compares opening a store on the device with copying its bytes there."""
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
    bench.log.add("store to bank on the device", size / opened, "GB/s")
    bench.log.add("  read and copied plainly", size / plain, "GB/s")
    bench.log.add("store to bank against the plain copy", plain / opened, at_least=OPENING)


def _one_and_two_epochs(
    setting: Setting, bank: FeatureBank, tasks: Sequence[Task]
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Trainings of one epoch and of two; their difference is an epoch without its preparation."""
    one, two = (
        partial(fit_group, replace(setting, epochs=epochs), bank, tasks, names=CLASSES)
        for epochs in (1, 2)
    )
    return one, two


def _count_step_calls(bench: Bench, bank: FeatureBank, setting: Setting, members: int) -> None:
    """Counts the calls of a step: the difference of two epochs and one, divided by the steps."""
    rows = np.arange(min(_COUNTED_STEPS * setting.batch_size, len(bank)))
    tasks = [Task(rows, rows[: setting.batch_size], seed) for seed in range(members)]
    steps = -(-len(rows) // setting.batch_size)
    one, two = _one_and_two_epochs(setting, bank, tasks)
    one()
    short, long = count_calls(one, bench.device), count_calls(two, bench.device)
    synchronised = synchronisations(two, bench.device) - synchronisations(one, bench.device)
    for what, count in (
        ("launches", long.launches - short.launches),
        ("waits of the CUDA runtime", long.waits - short.waits),
        ("synchronising operations", synchronised),
    ):
        title = f"{what} a step, {members} member(s), with the epoch's scores over {steps} steps"
        bench.log.add(title, count / steps)


def _time_token_epoch(bench: Bench, bank: FeatureBank, name: str, setting: Setting) -> None:
    """Times an epoch at the token level, of one member and of several."""
    for members in (1, bench.sizes.members):
        one, two = _one_and_two_epochs(setting, bank, fold_tasks(len(bank), members))
        one()
        seconds = time_call(two, bench.device) - time_call(one, bench.device)
        bench.log.add(f"token-level epoch of {name}, {members} member(s)", seconds, "s")
