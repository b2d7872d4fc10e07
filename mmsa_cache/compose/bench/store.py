"""``mmsa bench store``: the cost of stores of several sizes, on generated features.

Stores are written in shards of `SHARD_ROWS` rows, then merged. Each read runs in a fresh process,
so only the system's file cache is warm.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from fuse.figures.records import EpochRecord
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.files.temporary import temporary_folder
from mmsa_cache.names import MODALITIES
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.schema import FEATURE_DTYPE, Shard
from mmsa_cache.store.writer import FeatureWriter

from .cost import CostMeter, ProcessCost, TimeCost, run_in_process
from .generated import generated_encoder, numbered_keys, numbered_rows

SHARD_ROWS = 256
TRAINED_ROWS = 10_000
COLUMNS = (
    *("rows", "write", "merge", "files", "bytes", "first_open", "open", "open.peak_bytes"),
    *("bank", "bank.peak_bytes", "bank.open_files", "epoch"),
)
"""Columns of the table; times are followed by processor time."""
_POSITIONS = {"text": 8, "image": 4}
_DIM = 16
_POOLS = {"text": ("cls", "mean"), "image": ("mean", "first")}
_EPOCHS = 3
"""Epochs measured (the median counts), after one that warms up."""
_SETTLE_SECONDS = 0.1
"""Time after which a file counts as unchanged."""


class StoreSize(BaseModel):
    """Costs of one store, both modalities together."""

    rows: int
    """Rows of each modality."""
    write: TimeCost
    """Writing all shards, without generating them."""
    merge: TimeCost
    files: int
    bytes: int
    first_open: ProcessCost
    """First opening, which hashes every byte."""
    open: ProcessCost
    bank: ProcessCost
    """Opening all rows as a `FeatureBank`."""
    epoch: TimeCost
    """Training epoch of a pooled model, in one thread, on at most `TRAINED_ROWS` samples."""


class StoreGrowth(BaseModel):
    """Costs of stores of increasing size."""

    generated: bool = True
    """Whether features are generated (always)."""
    sizes: list[StoreSize]
    growth: list[dict[str, Any]]
    """Each size's costs relative to the size before; None if those are 0."""


def bench_store(sizes: Sequence[int]) -> StoreGrowth:
    """Measures stores of several sizes, one after another.

    Raises:
        DiskError: There is no room for one.
    """
    measured = []
    for rows in sizes:
        with temporary_folder() as folder:
            measured.append(_measure(folder, rows))
    growth = [
        _ratios(now.model_dump(), last.model_dump()) for last, now in itertools.pairwise(measured)
    ]
    return StoreGrowth(sizes=measured, growth=growth)


def _ratios(now: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _ratios(value, last[name])
        if isinstance(value, dict)
        else (value / last[name] if last[name] else None)
        for name, value in now.items()
    }


def store_table(result: StoreGrowth) -> list[dict[str, str]]:
    """A row of `COLUMNS` for each size, preceded by its growth."""
    records: list[tuple[str, dict[str, Any]]] = []
    for size, growth in zip(result.sizes, [None, *result.growth], strict=True):
        records += [("×", growth)] if growth else []
        records.append(("", size.model_dump()))
    return [{name: _cell(record, name, sign) for name in COLUMNS} for sign, record in records]


def _cell(record: Any, name: str, sign: str) -> str:
    for key in name.split("."):
        record = record[key]
    if isinstance(record, dict):
        return " ".join((_cell(record, "seconds", sign), f"({_cell(record, 'cpu_seconds', sign)})"))
    if record is None:
        return "–"
    return f"{sign}{record:.3g}" if isinstance(record, float) else f"{sign}{record}"


def _measure(root: Path, rows: int) -> StoreSize:
    keys = numbered_keys(rows)
    write, merge = CostMeter(), CostMeter()
    files = total_bytes = 0
    for modality in MODALITIES:
        writer = FeatureWriter(root, generated_encoder(modality))
        with writer.claim(lambda: None):
            for shard in _shards(modality, keys):
                with write:
                    writer.publish(shard)
            with merge:
                writer.finish()
        files += len(list(writer.folder.glob("*.h5")))
        total_bytes += writer.bytes
    time.sleep(_SETTLE_SECONDS)
    first_open, opened = (run_in_process(_open, root, rows) for _ in range(2))
    bank, epoch = run_in_process(_train, root, rows)
    return StoreSize(
        rows=rows,
        write=write.time_cost(),
        merge=merge.time_cost(),
        files=files,
        bytes=total_bytes,
        first_open=first_open,
        open=opened,
        bank=bank,
        epoch=epoch,
    )


def _shards(modality: str, keys: Keys) -> Iterator[Shard]:
    rng = np.random.default_rng(len(keys))
    positions, pools = _POSITIONS[modality], _POOLS[modality]
    for first in range(0, len(keys), SHARD_ROWS):
        shard_keys = keys[first : first + SHARD_ROWS]
        rows = len(shard_keys)
        yield Shard(
            shard_keys,
            [""] * rows,
            positions * np.arange(rows + 1),
            rng.standard_normal((rows * positions, _DIM), np.float32).astype(FEATURE_DTYPE),
            rng.standard_normal((rows, len(pools), _DIM), np.float32).astype(FEATURE_DTYPE),
            pools,
        )


def _open(root: Path, rows: int) -> ProcessCost:
    """Opens both modalities."""
    meter = CostMeter()
    with meter:
        opened = [open_features(generated_encoder(name).folder(root)) for name in MODALITIES]
    assert [features.starts[-1] for features in opened] == [rows, rows]
    return meter.process_cost()


def _train(root: Path, rows: int) -> tuple[ProcessCost, TimeCost]:
    """Makes a bank of all rows, and trains on some of them."""
    # Imported here, since opening a store needs no torch.
    from fuse.setting import Setting
    from fuse.training.trainer import fit
    from mmsa_cache.features.bank import FeatureBank
    from mmsa_cache.features.modality import ModalityFeatures
    from mmsa_cache.native.threads import threads

    wanted = numbered_rows(range(rows), [0] * rows)
    guids, labels = [str(row) for row in range(rows)], [row % len(LABELS) for row in range(rows)]
    meter = CostMeter()
    with meter:
        text, image = (
            ModalityFeatures.open(generated_encoder(name).folder(root), wanted)
            for name in MODALITIES
        )
        bank = FeatureBank(text, image, guids, labels)
    bank_cost = meter.process_cost()
    setting = Setting(epochs=1 + _EPOCHS, keep="last", schedule="constant")
    training_rows = np.linspace(0, rows - 1, min(rows, TRAINED_ROWS)).astype(np.int64)
    ends: list[tuple[float, float]] = []

    def end_epoch(record: EpochRecord) -> None:
        ends.append((time.perf_counter(), time.process_time()))

    with threads(1):
        fit(setting, bank, training_rows, names=LABELS, seed=0, on_epoch=end_epoch)
    seconds, cpu_seconds = np.median(np.diff(ends, axis=0), axis=0).tolist()
    return bank_cost, TimeCost(seconds=seconds, cpu_seconds=cpu_seconds)
