"""Speed of stage two compared with textbook code in one run.

Machines are shared and noisy, so both take turns, and ratios are medians over rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import h5py
import numpy as np

from fuse.figures.records import EpochRecord
from fuse.training.classifier import matmul_precision
from fuse.training.runner import Runner
from fuse.training.stack import Stack
from fuse.training.task import Checkpoint, Task
from fuse.training.trainer import fit, fit_group
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.source import BankSource
from mmsa_cache.files.disk import discard
from mmsa_cache.files.untrusted import read_regular
from mmsa_cache.native.timing import synchronize, time_call
from mmsa_cache.store.index import Index
from mmsa_cache.store.verification import VERIFIED

from .setting import Setting
from .textbook import BATCH, Textbook


class EpochFigures(TypedDict):
    """Seconds an epoch, and their ratio; medians over rounds."""

    epoch_seconds: float
    textbook_epoch_seconds: float
    ratio_textbook: float
    ratio_textbook_rounds: list[float]
    batches: int


class ReadingFigures(TypedDict):
    """Seconds and ratios."""

    cache_bytes: int
    read_seconds: float
    first_open_seconds: float
    """The first opening after an extraction, which hashes every byte."""
    open_seconds: float
    """Later openings."""
    per_sample_h5py_seconds: float
    ratio_read: float
    ratio_read_first: float
    ratio_per_sample_h5py: float


class FoldFigures(TypedDict):
    """Seconds, and their ratio: stacked on a GPU, one after another on a CPU."""

    one_fold_seconds: float
    five_folds_seconds: float
    ratio_five_folds: float


class StepFigures(TypedDict):
    """Seconds of a step: an epoch's time divided by its steps."""

    step_seconds: float
    captured: bool
    """Whether these steps were launched as a graph."""
    plain_step_seconds: float


def bench_epochs(bank: FeatureBank, names: Sequence[str], rounds: int) -> EpochFigures:
    """An epoch of the concat model on pooled features, against a textbook loop on the same tensors.

    Args:
        bank: All training rows and variants.
        names: Class names.
        rounds: Epochs of each, after one for set-up.
    """
    setting = Setting(epochs=rounds + 1, batch_size=BATCH, keep="last", schedule="constant")
    everything = np.arange(len(bank))
    textbook = Textbook(bank, setting, names)
    ours: list[float] = []
    theirs: list[float] = []
    last = time.perf_counter()

    def turn(record: EpochRecord) -> None:
        nonlocal last
        ours.append(time.perf_counter() - last)
        started = time.perf_counter()
        with matmul_precision(Setting(precision="float32")):  # PyTorch's default
            textbook.epoch()
        synchronize(bank.labels.device)
        last = time.perf_counter()
        theirs.append(last - started)

    # A handful of rows is scored after each epoch; the textbook loop scores none.
    fit(setting, bank, everything, everything[:BATCH], names=names, seed=0, on_epoch=turn)
    ratios = [b / a for a, b in zip(ours[1:], theirs[1:], strict=True)]
    return {
        "epoch_seconds": statistics.median(ours[1:]),
        "textbook_epoch_seconds": statistics.median(theirs[1:]),
        "ratio_textbook": statistics.median(ratios),
        "ratio_textbook_rounds": ratios,
        "batches": -(-len(bank.items(everything, variants=True)) // BATCH),
    }


def bench_reading(source: BankSource, rounds: int) -> ReadingFigures:
    """Opening features, compared with reading their bytes and with a loop of single HDF5 reads.

    Args:
        source: The features, of one encoder a modality.
        rounds: Number of turns.
    """
    folders = list(source.folders.values())
    files = [f / entry.file for f in folders for entry in Index.read(f).entries.values()]
    size = sum(path.stat().st_size for path in files)
    opened: list[float] = []
    first: list[float] = []
    read: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        for path in files:
            read_regular(path, path.stat().st_size)
        read.append(time.perf_counter() - started)
        for folder in folders:
            discard(folder / VERIFIED)
        for seconds in (first, opened):
            started = time.perf_counter()
            sides = {
                modality: ModalityFeatures.open(folder, source.rows[modality])
                for (modality, _), folder in source.folders.items()
            }
            FeatureBank(
                sides["text"],
                sides["image"],
                source.guids,
                source.labels,
                partial=source.partial,
            )
            seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    for path in files:
        _read_row_by_row(path)
    single = time.perf_counter() - started
    return {
        "cache_bytes": size,
        "read_seconds": statistics.median(read),
        "first_open_seconds": statistics.median(first),
        "open_seconds": statistics.median(opened),
        "per_sample_h5py_seconds": single,
        "ratio_read": statistics.median(a / b for a, b in zip(read, opened, strict=True)),
        "ratio_read_first": statistics.median(a / b for a, b in zip(read, first, strict=True)),
        "ratio_per_sample_h5py": single / statistics.median(opened),
    }


def _read_row_by_row(path: Path) -> None:
    with h5py.File(path, "r") as file:
        offsets = file["offsets"][()]
        for row in range(len(offsets) - 1):
            file["tokens"][offsets[row] : offsets[row + 1]]
            file["pooled"][row]


def bench_folds(bank: FeatureBank, names: Sequence[str], rounds: int) -> FoldFigures:
    """Five members on five folds together, compared with one of them."""
    setting = Setting(epochs=2, batch_size=BATCH, keep="last", schedule="constant")
    rows = np.arange(len(bank))
    tasks = [Task(rows[rows % 5 != fold], rows[rows % 5 == fold], fold) for fold in range(5)]

    def seconds(tasks: Sequence[Task]) -> float:
        return time_call(lambda: fit_group(setting, bank, tasks, names=names), bank.labels.device)

    seconds(tasks[:1])  # sets up kernels
    one, five = [], []
    for _ in range(rounds):
        one.append(seconds(tasks[:1]))
        five.append(seconds(tasks))
    return {
        "one_fold_seconds": statistics.median(one),
        "five_folds_seconds": statistics.median(five),
        "ratio_five_folds": statistics.median(b / a for a, b in zip(one, five, strict=True)),
    }


def bench_steps(bank: FeatureBank, names: Sequence[str], members: int) -> StepFigures:
    """A training step of several members together, with and without a graph."""
    setting = Setting(epochs=4, batch_size=BATCH, keep="last", schedule="constant")
    rows, device = np.arange(len(bank)), bank.labels.device
    runners = [
        Runner(setting, bank, Task(rows, rows[:BATCH], seed), names, True, seed, Checkpoint())
        for seed in range(members)
    ]
    stack = Stack(runners)

    def seconds(number: int) -> float:
        return time_call(lambda: stack.epoch(number), device) / runners[0].steps

    with matmul_precision(setting):
        seconds(0)  # sets up kernels, and captures
        launched, captured = min(seconds(1), seconds(2)), stack.repeated.captures
        stack.repeated.captures = False
        return {
            "step_seconds": launched,
            "captured": captured,
            "plain_step_seconds": seconds(3),
        }


def bench_encoders_in_loop(
    encode: Callable[[Sequence[int]], Any], bank: FeatureBank, names: Sequence[str], batches: int
) -> float:
    """Seconds a batch if the frozen encoders run inside the training loop, as in the report.

    Args:
        encode: Reads and encodes samples, given their indices.
        bank: The same samples, for the training step.
        names: Class names.
        batches: Number of measured batches, after one for set-up.
    """
    rows = np.arange((batches + 1) * BATCH) % len(bank)
    setting = Setting(epochs=1, batch_size=BATCH, keep="last", schedule="constant")
    encode(rows[:BATCH].tolist())
    device = bank.labels.device

    def loop() -> None:
        for first in range(BATCH, len(rows), BATCH):
            encode(rows[first : first + BATCH].tolist())
        fit(setting, bank, rows[BATCH:], rows[:BATCH], names=names, seed=0)

    return time_call(loop, device) / batches
