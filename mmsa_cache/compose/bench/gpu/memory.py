"""Step 5: how much memory training takes, and what happens when there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from extract.shards import encode_rows
from extract.streams import HalvingEncoder
from fuse.fields import Level
from fuse.setting import Setting
from fuse.training.task import Task
from fuse.training.trainer import fit_group
from mmsa_cache.errors import DeviceError
from mmsa_cache.features.modality import ModalityFeatures

from .bench import CLASSES, Bench, evenly

_WANTED = "DeviceError (exit code 5)"
_OUT_OF_MEMORY = "CUDA out of memory. (injected)"
_PIECES = (1 << 20, 1 << 14, 512)
"""Bytes."""


def run(bench: Bench) -> None:
    """Measures a stack, then takes the memory away at every place that needs it."""
    pairs: tuple[tuple[str, Level], ...] = (("concat", "pooled"), ("attention_concat", "tokens"))
    for fusion, level in pairs:
        with bench.figures.attempt(f"stack of {bench.sizes.stack}, {fusion}, {level}"):
            _stack(bench, fusion, level)
    _ends(bench, "bank that does not fit", lambda: _bank(bench))
    _ends(bench, "out of memory while loading an encoder", lambda: _loading(bench))
    _ends(bench, "out of memory in an encoder's first pass", lambda: _probing(bench))
    with bench.figures.attempt("out of memory while encoding, batches halved"):
        _encoding(bench)
    _ends(bench, "out of memory at one row", lambda: _one_row(bench))
    _ends(bench, "out of memory while training", lambda: _training(bench))


def _stack(bench: Bench, fusion: str, level: Level) -> None:
    """Peak memory of a group trained together, beside the features."""
    bank = bench.bank(bench.device)
    every, members = np.arange(len(bank)), bench.sizes.stack
    setting = Setting(fusion=fusion, level=level, image_dim=128, text_dim=128, epochs=1)
    setting = replace(setting, batch_size=128, **bench.sizes.model)
    tasks = [Task(every[every % 5 != k % 5], every[every % 5 == k % 5], k) for k in range(members)]
    cuda = bench.device.type == "cuda"
    before = torch.cuda.memory_allocated(bench.device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    fit_group(setting, bank, tasks, names=CLASSES)
    peak = torch.cuda.max_memory_allocated(bench.device) - before if cuda else 0
    what = f"stack of {members}, {fusion}, {level}: peak beside the features"
    bench.figures.add(what, peak / 1e9, "GB")
    bench.figures.add("  features on the device", before / 1e9, "GB")


def _ends(bench: Bench, what: str, work: Any) -> None:
    """Keeps how work ends for which there is no memory."""
    try:
        work()
        found = "went on"
    except DeviceError as error:
        bench.figures.check(what, True, _WANTED, f"DeviceError: {error.message}"[:200])
        return
    except Exception as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    finally:
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    bench.figures.check(what, False, _WANTED, found)


@contextlib.contextmanager
def _little_memory(bench: Bench) -> Iterator[None]:
    """On a GPU no memory may be allocated any more; on the CPU moving features fails."""
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(bench.device).total_memory
        share = torch.cuda.memory_reserved(bench.device) / total
        torch.cuda.set_per_process_memory_fraction(share, bench.device)
        taken = []
        for size in _PIECES:  # what is reserved and free would hold features of tiny sizes
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    taken.append(torch.empty(size, dtype=torch.uint8, device=bench.device))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
        return
    with mock.patch.object(ModalityFeatures, "to", _refuse):
        yield


def _refuse(*arguments: object, **named: object) -> None:
    raise torch.OutOfMemoryError(_OUT_OF_MEMORY)


def _bank(bench: Bench) -> None:
    bank = bench.generated.bank()
    with _little_memory(bench):
        bank.to(bench.device)


def _loading(bench: Bench) -> None:
    spec = bench.specs(bench.compute)["image"]
    with mock.patch("torch.nn.Module.to", _refuse):
        spec.load(bench.device)


def _probing(bench: Bench) -> None:
    spec = bench.specs(bench.compute)["image"]
    with mock.patch("extract.encoders.image.ImageEncoder.encode", _refuse):
        spec.load(bench.device)


class _MemoryLimitedEncoder:
    """An encoder that has memory for so many rows at once."""

    def __init__(self, encoder: Any, rows: int) -> None:
        self._encoder, self._rows = encoder, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, batch: Sequence[Tensor]) -> Any:
        if len(batch) > self._rows:
            _refuse()
        return self._encoder.encode(batch)


def _encoding(bench: Bench) -> None:
    """A quarter of a batch fits: batches must be halved twice, and the features stay the same."""
    rows = bench.rows("image", evenly(bench.samples(), bench.sizes.batch_size))
    encoder = bench.specs(bench.compute)["image"].load(bench.device)
    inputs = encoder.prepare([bench.readers()["image"](row)[0] for row in rows])
    limited: Any = _MemoryLimitedEncoder(encoder, max(1, len(rows) // 4))
    what = "out of memory while encoding, a quarter of a batch fits"
    wanted = "halved until it fits"
    try:
        parts = HalvingEncoder(limited).run(inputs)
    except torch.OutOfMemoryError as error:
        bench.figures.check(what, False, wanted, f"OutOfMemoryError: {error}")
        return
    bench.figures.check(what, sum(len(part.lengths) for part in parts) == len(rows), wanted)


def _one_row(bench: Bench) -> None:
    rows = bench.rows("image", evenly(bench.samples(), 2))
    encoder: Any = _MemoryLimitedEncoder(bench.specs(bench.compute)["image"].load(bench.device), 0)
    encode_rows(rows, bench.readers()["image"], encoder, bench.device, 2)


def _training(bench: Bench) -> None:
    bank = bench.bank(bench.device, bench.sizes.small_samples)
    every = np.arange(len(bank))
    with mock.patch("fuse.models.model.MultimodalClassifier.classify", _refuse):
        setting = Setting(epochs=1, keep="last", schedule="constant")
        fit_group(setting, bank, [Task(every, every[:8], 0)], names=CLASSES)
