"""``mmsa bench store``: how a store behaves as it grows, on generated features.

The store's own writer seals shards of `SHARD_ROWS` rows and merges them; what reads it runs in a
fresh process each time, so that nothing is warm but the system's cache of files.
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

from .generated import generated_encoder, numbered_keys, numbered_rows
from .measured import Read, Took, Watch, alone

SHARD_ROWS = 256
TRAINED_ROWS = 10_000
COLUMNS = (
    *("rows", "write", "merge", "files", "bytes", "first_open", "open", "open.peak_bytes"),
    *("bank", "bank.peak_bytes", "bank.open_files", "epoch"),
)
"""Of the table; those without a dot that are seconds stand with those of the processor."""
_POSITIONS = {"text": 8, "image": 4}
_DIM = 16
_POOLS = {"text": ("cls", "mean"), "image": ("mean", "first")}
_EPOCHS = 3
"""Of which the median is taken; one before them sets things up."""
_SETTLED = 0.1
"""Seconds after which a file counts as untouched."""


class StoreSize(BaseModel):
    """What one store of generated features took, both modalities together."""

    rows: int
    """Of each modality."""
    write: Took
    """Sealing all rows, without drawing them."""
    merge: Took
    files: int
    bytes: int
    first_open: Read
    """Hashes every byte."""
    open: Read
    bank: Read
    """Opens all rows, and makes tensors of them."""
    epoch: Took
    """Of a pooled model, in one thread, on `TRAINED_ROWS` samples or all."""


class StoreGrowth(BaseModel):
    """Stores from size to size."""

    generated: bool = True
    """No figure is of real features."""
    sizes: list[StoreSize]
    growth: list[dict[str, Any]]
    """Each size's figures as multiples of those of the size before; None where these are 0."""


def bench_store(sizes: Sequence[int]) -> StoreGrowth:
    """Measures stores of several sizes, one after another.

    Raises:
        DiskError: There is no room for one.
    """
    found = []
    for rows in sizes:
        with temporary_folder() as folder:
            found.append(_measured(folder, rows))
    growth = [
        _multiples(now.model_dump(), last.model_dump()) for last, now in itertools.pairwise(found)
    ]
    return StoreGrowth(sizes=found, growth=growth)


def _multiples(now: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _multiples(value, last[name])
        if isinstance(value, dict)
        else (value / last[name] if last[name] else None)
        for name, value in now.items()
    }


def store_table(found: StoreGrowth) -> list[dict[str, str]]:
    """A line of `COLUMNS` a size, and before it what it grew by."""
    records: list[tuple[str, dict[str, Any]]] = []
    for size, growth in zip(found.sizes, [None, *found.growth], strict=True):
        records += [("×", growth)] if growth else []
        records.append(("", size.model_dump()))
    return [{name: _cell(record, name, sign) for name in COLUMNS} for sign, record in records]


def _cell(record: Any, name: str, sign: str) -> str:
    for part in name.split("."):
        record = record[part]
    if isinstance(record, dict):
        return " ".join((_cell(record, "seconds", sign), f"({_cell(record, 'cpu_seconds', sign)})"))
    if record is None:
        return "–"
    return f"{sign}{record:.3g}" if isinstance(record, float) else f"{sign}{record}"


def _measured(root: Path, rows: int) -> StoreSize:
    keys = numbered_keys(rows)
    write, merge = Watch(), Watch()
    files = size = 0
    for modality in MODALITIES:
        writer = FeatureWriter(root, generated_encoder(modality))
        with writer.claim(lambda: None):
            for shard in _shards(modality, keys):
                with write:
                    writer.publish(shard)
            with merge:
                writer.finish()
        files += len(list(writer.folder.glob("*.h5")))
        size += writer.bytes
    time.sleep(_SETTLED)
    first, opened = (alone(_open, root, rows) for _ in range(2))
    bank, epoch = alone(_train, root, rows)
    return StoreSize(
        rows=rows,
        write=write.took(),
        merge=merge.took(),
        files=files,
        bytes=size,
        first_open=first,
        open=opened,
        bank=bank,
        epoch=epoch,
    )


def _shards(modality: str, keys: Keys) -> Iterator[Shard]:
    rng = np.random.default_rng(len(keys))
    positions, pools = _POSITIONS[modality], _POOLS[modality]
    for first in range(0, len(keys), SHARD_ROWS):
        part = keys[first : first + SHARD_ROWS]
        rows = len(part)
        yield Shard(
            part,
            [""] * rows,
            positions * np.arange(rows + 1),
            rng.standard_normal((rows * positions, _DIM), np.float32).astype(FEATURE_DTYPE),
            rng.standard_normal((rows, len(pools), _DIM), np.float32).astype(FEATURE_DTYPE),
            pools,
        )


def _open(root: Path, rows: int) -> Read:
    """Opens both modalities."""
    watch = Watch()
    with watch:
        found = [open_features(generated_encoder(name).folder(root)) for name in MODALITIES]
    assert [features.starts[-1] for features in found] == [rows, rows]
    return watch.read()


def _train(root: Path, rows: int) -> tuple[Read, Took]:
    """Makes a bank of all rows, and trains on some of them."""
    # Here, since the processes that only open a store need no torch.
    from fuse.setting import Setting
    from fuse.training.trainer import fit
    from mmsa_cache.features.bank import FeatureBank
    from mmsa_cache.features.modality import ModalityFeatures
    from mmsa_cache.native.threads import threads

    wanted = numbered_rows(range(rows), [0] * rows)
    guids, labels = [str(row) for row in range(rows)], [row % len(LABELS) for row in range(rows)]
    watch = Watch()
    with watch:
        text, image = (
            ModalityFeatures.open(generated_encoder(name).folder(root), wanted)
            for name in MODALITIES
        )
        bank = FeatureBank(text, image, guids, labels)
    read = watch.read()
    setting = Setting(epochs=1 + _EPOCHS, keep="last", schedule="constant")
    chosen = np.linspace(0, rows - 1, min(rows, TRAINED_ROWS)).astype(np.int64)
    ends: list[tuple[float, float]] = []

    def ended(record: EpochRecord) -> None:
        ends.append((time.perf_counter(), time.process_time()))

    with threads(1):
        fit(setting, bank, chosen, names=LABELS, seed=0, on_epoch=ended)
    seconds, cpu_seconds = np.median(np.diff(ends, axis=0), axis=0).tolist()
    return read, Took(seconds=seconds, cpu_seconds=cpu_seconds)
