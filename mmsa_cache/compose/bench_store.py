"""``mmsa bench store``: how a store behaves as it grows, on generated features.

The store's own writer seals shards of `SHARD_ROWS` rows and merges them; what reads it runs in a
fresh process each time, so that nothing is warm but the system's cache of files.
"""

from __future__ import annotations

import itertools
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from pydantic import BaseModel

from fuse.figures.records import EpochRecord
from fuse.setting import Setting
from fuse.training.trainer import fit
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.threads import threads
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.schema import FEATURE_DTYPE, Shard
from mmsa_cache.store.writer import FeatureWriter

from .generated import generated_encoder, numbered_keys, numbered_rows

SHARD_ROWS = 256
TRAINED_ROWS = 10_000
_POSITIONS = {"text": 8, "image": 4}
_DIM = 16
_POOLS = {"text": ("cls", "mean"), "image": ("mean", "first")}
_EPOCHS = 3
"""Of which the median is taken; one before them sets things up."""
_SETTLED = 0.1
"""Seconds after which a file counts as untouched."""


class StoreSize(BaseModel):
    """What one store of generated features took; seconds, and bytes of both modalities together."""

    rows: int
    """Of each modality."""
    write_seconds: float
    """To seal all rows, without drawing them."""
    merge_seconds: float
    files: int
    bytes: int
    first_open_seconds: float
    """Hashes every byte."""
    open_seconds: float
    open_peak_bytes: int
    """By which the process grew."""
    open_files: int
    """Descriptors that are kept."""
    bank_seconds: float
    bank_peak_bytes: int
    bank_files: int
    epoch_seconds: float
    """Of a pooled model, in one thread, on `TRAINED_ROWS` samples or all."""


class StoreGrowth(BaseModel):
    """Stores from size to size."""

    generated: bool = True
    """No figure is of real features."""
    sizes: list[StoreSize]
    growth: list[dict[str, float]]
    """Each size's figures as multiples of those of the size before, where these are not 0."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading took in a process of its own."""

    seconds: float
    peak_bytes: int
    files: int
    epoch_seconds: float = 0.0


def bench_store(sizes: Sequence[int]) -> StoreGrowth:
    """Measures stores of several sizes, one after another.

    Args:
        sizes: Rows of each.

    Raises:
        DiskError: There is no room for one.
    """
    found = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="mmsa-store-") as folder:
            found.append(_measured(Path(folder), rows))
    growth = [
        {
            name: value / before
            for name, value in now.model_dump().items()
            if (before := getattr(last, name))
        }
        for last, now in itertools.pairwise(found)
    ]
    return StoreGrowth(sizes=found, growth=growth)


def _measured(root: Path, rows: int) -> StoreSize:
    keys = numbered_keys(rows)
    write = merge = 0.0
    files = size = 0
    for modality in MODALITIES:
        writer = FeatureWriter(root, generated_encoder(modality))
        with writer.claim(lambda: None):
            for shard in _shards(modality, keys):
                started = time.perf_counter()
                writer.publish(shard)
                write += time.perf_counter() - started
            started = time.perf_counter()
            writer.finish()
            merge += time.perf_counter() - started
        files += len(list(writer.folder.glob("*.h5")))
        size += writer.bytes
    time.sleep(_SETTLED)
    first, opened, bank = (_alone(work, root, rows) for work in (_open, _open, _train))
    return StoreSize(
        rows=rows,
        write_seconds=write,
        merge_seconds=merge,
        files=files,
        bytes=size,
        first_open_seconds=first.seconds,
        open_seconds=opened.seconds,
        open_peak_bytes=opened.peak_bytes,
        open_files=opened.files,
        bank_seconds=bank.seconds,
        bank_peak_bytes=bank.peak_bytes,
        bank_files=bank.files,
        epoch_seconds=bank.epoch_seconds,
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


def _alone(work: Callable[[Path, int], _Read], root: Path, rows: int) -> _Read:
    """Runs one of the functions below in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(work, root, rows).result()


class _Watch:
    """What this process takes from now on."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._files, self._memory = self._process.num_fds(), self._process.memory_info().rss
        self._started = time.perf_counter()

    def read(self) -> _Read:
        """Seconds, growth at its peak, and descriptors."""
        seconds = time.perf_counter() - self._started
        files = self._process.num_fds() - self._files
        return _Read(seconds, max(0, _peak_bytes() - self._memory), files)


def _peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # what the system tells otherwise may be of the process that started it
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _open(root: Path, rows: int) -> _Read:
    """Opens both modalities."""
    watch = _Watch()
    found = [open_features(generated_encoder(name).folder(root)) for name in MODALITIES]
    read = watch.read()
    assert [features.starts[-1] for features in found] == [rows, rows]
    return read


def _train(root: Path, rows: int) -> _Read:
    """Makes a bank of all rows, and trains on some of them."""
    wanted = numbered_rows(range(rows), [0] * rows)
    guids, labels = [str(row) for row in range(rows)], [row % len(LABELS) for row in range(rows)]
    watch = _Watch()
    text, image = (
        ModalityFeatures.open(generated_encoder(name).folder(root), wanted) for name in MODALITIES
    )
    bank = FeatureBank(text, image, guids, labels)
    read = watch.read()
    setting = Setting(epochs=1 + _EPOCHS, keep="last", schedule="constant")
    chosen = np.linspace(0, rows - 1, min(rows, TRAINED_ROWS)).astype(np.int64)
    ends: list[float] = []

    def ended(record: EpochRecord) -> None:
        ends.append(time.perf_counter())

    with threads(1):
        fit(setting, bank, chosen, names=LABELS, seed=0, on_epoch=ended)
    return _Read(read.seconds, read.peak_bytes, read.files, statistics.median(np.diff(ends)))
