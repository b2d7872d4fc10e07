"""Step 5: the memory of training, and what happens without memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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

from ..extract import spread_samples
from .bench import CLASSES, Bench, fold_tasks

_WANTED = "DeviceError (exit code 5)"
_OUT_OF_MEMORY = "CUDA out of memory. (injected)"
_BLOCK_SIZES = (1 << 20, 1 << 14, 512)
"""Bytes."""


def run(bench: Bench) -> None:
    """Measures the memory of stacks, then removes the memory for each kind of work."""
    pairs: tuple[tuple[str, Level], ...] = (("concat", "pooled"), ("attention_concat", "tokens"))
    for fusion, level in pairs:
        with bench.log.attempt(f"stack of {bench.sizes.stack}, {fusion}, {level}"):
            _measure_stack(bench, fusion, level)
    _check_ending(bench, "bank that does not fit", _move_bank)
    _check_ending(bench, "out of memory while loading an encoder", _load_encoder)
    _check_ending(bench, "out of memory in an encoder's first pass", _probe_encoder)
    with bench.log.attempt("out of memory while encoding, batches halved"):
        _encode_in_parts(bench)
    _check_ending(bench, "out of memory at one row", _encode_without_memory)
    _check_ending(bench, "out of memory while training", _train)


def _measure_stack(bench: Bench, fusion: str, level: Level) -> None:
    """Peak memory of a group trained together, without the features."""
    bank, members = bench.bank(bench.device), bench.sizes.stack
    setting = Setting(fusion=fusion, level=level, image_dim=128, text_dim=128, epochs=1)
    setting = replace(setting, batch_size=128, **bench.sizes.model)
    cuda = bench.device.type == "cuda"
    before = torch.cuda.memory_allocated(bench.device) if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    fit_group(setting, bank, fold_tasks(len(bank), members), names=CLASSES)
    peak = torch.cuda.max_memory_allocated(bench.device) - before if cuda else 0
    what = f"stack of {members}, {fusion}, {level}: peak beside the features"
    bench.log.add(what, peak / 1e9, "GB")
    bench.log.add("  features on the device", before / 1e9, "GB")


def _check_ending(bench: Bench, what: str, work: Callable[[Bench], None]) -> None:
    """Logs how work ends that has no memory."""
    try:
        work(bench)
        ending = "went on"
    except DeviceError as error:
        bench.log.check(what, True, _WANTED, f"DeviceError: {error.message}"[:200])
        return
    except Exception as error:
        ending = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    finally:
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    bench.log.check(what, False, _WANTED, ending)


@contextlib.contextmanager
def _little_memory(bench: Bench) -> Iterator[None]:
    """Forbids further allocations on a GPU; on the CPU, makes moving features fail."""
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(bench.device).total_memory
        share = torch.cuda.memory_reserved(bench.device) / total
        torch.cuda.set_per_process_memory_fraction(share, bench.device)
        blocks = []
        for size in _BLOCK_SIZES:  # fill what is reserved, which tiny features would fit into
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    blocks.append(torch.empty(size, dtype=torch.uint8, device=bench.device))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, bench.device)
        return
    with mock.patch.object(ModalityFeatures, "to", _raise_out_of_memory):
        yield


def _raise_out_of_memory(*args: object, **kwargs: object) -> None:
    raise torch.OutOfMemoryError(_OUT_OF_MEMORY)


def _move_bank(bench: Bench) -> None:
    bank = bench.generated.bank()
    with _little_memory(bench):
        bank.to(bench.device)


def _load_encoder(bench: Bench) -> None:
    spec = bench.specs(bench.compute)["image"]
    with mock.patch("torch.nn.Module.to", _raise_out_of_memory):
        spec.load(bench.device)


def _probe_encoder(bench: Bench) -> None:
    spec = bench.specs(bench.compute)["image"]
    with mock.patch("extract.encoders.image.ImageEncoder.encode", _raise_out_of_memory):
        spec.load(bench.device)


class _MemoryLimitedEncoder:
    """An encoder with memory for a limited number of rows at once."""

    def __init__(self, encoder: Any, rows: int) -> None:
        self._encoder, self._rows = encoder, rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, batch: Sequence[Tensor]) -> Any:
        if len(batch) > self._rows:
            _raise_out_of_memory()
        return self._encoder.encode(batch)


def _encode_in_parts(bench: Bench) -> None:
    """A quarter of a batch fits, so batches must be halved twice."""
    rows = bench.rows("image", spread_samples(bench.samples(), bench.sizes.batch_size))
    encoder = bench.specs(bench.compute)["image"].load(bench.device)
    inputs = encoder.prepare([bench.readers()["image"](row)[0] for row in rows])
    limited: Any = _MemoryLimitedEncoder(encoder, max(1, len(rows) // 4))
    what = "out of memory while encoding, a quarter of a batch fits"
    wanted = "halved until it fits"
    try:
        parts = HalvingEncoder(limited).run(inputs)
    except torch.OutOfMemoryError as error:
        bench.log.check(what, False, wanted, f"OutOfMemoryError: {error}")
        return
    bench.log.check(what, sum(len(part.lengths) for part in parts) == len(rows), wanted)


def _encode_without_memory(bench: Bench) -> None:
    rows = bench.rows("image", spread_samples(bench.samples(), 2))
    encoder: Any = _MemoryLimitedEncoder(bench.specs(bench.compute)["image"].load(bench.device), 0)
    encode_rows(rows, bench.readers()["image"], encoder, bench.device, 2)


def _train(bench: Bench) -> None:
    bank = bench.bank(bench.device, bench.sizes.small_samples)
    rows = np.arange(len(bank))
    with mock.patch("fuse.models.model.MultimodalClassifier.classify", _raise_out_of_memory):
        setting = Setting(epochs=1, keep="last", schedule="constant")
        fit_group(setting, bank, [Task(rows, rows[:8], 0)], names=CLASSES)
