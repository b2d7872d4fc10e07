"""Stores of features that training is measured on: generated ones, and the real pooled ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsa_cache.compose.bench.generated import (
    generated_encoder,
    numbered_keys,
    numbered_rows,
    write_generated,
)
from mmsa_cache.data.layouts.listing import LABELS
from mmsa_cache.data.splits import report_copies
from mmsa_cache.errors import DataError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.features.source import BankSource
from mmsa_cache.files.disk import make_folders, new_file, write_atomically
from mmsa_cache.files.paths import resolve_declared
from mmsa_cache.files.untrusted import open_regular
from mmsa_cache.names import DEFAULT_ENCODER, DEFAULT_PAIR, MODALITIES
from mmsa_cache.store.schema import Shard

from .sizes import Sizes

PACKED = "pooled.npz"
"""File of a packed folder: ``text`` and ``image`` (rows, dim) float16, ``sample`` and ``variant``
(rows,), ``label`` and ``group`` (samples,)."""
_TOKENS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0), (3, 14, 16, 22, 30, 39, 49, 54, 128)
"""Quantiles of MiniLM's tokens of the 4,511 tweets of MVSA-Single."""
_SHARES = (0.597, 0.105, 0.298)
_SIGNAL = 0.3
"""Length of a class's direction beside noise of unit variance."""
_SHARD_ROWS = 256
_TABLE = "table.npz"
_POOL = 1 << 22
"""Numbers of noise that rows are cut from: drawing all of them would take longer than training."""


@dataclass(frozen=True, slots=True)
class BenchStore:
    """Features of one data set on disk, and what a search needs of it besides."""

    folder: Path
    labels: NDArray[np.int64]
    """(samples,)"""
    groups: NDArray[np.int64]
    """Duplicate groups, (samples,)."""
    rows: SampleRows
    """Of each modality."""

    @classmethod
    def make(
        cls,
        folder: Path,
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        samples: NDArray[np.int64],
        variants: NDArray[np.int64],
    ) -> BenchStore:
        """Keeps what rows are of beside their features.

        Args:
            folder: Where they are.
            labels: (samples,)
            groups: (samples,)
            samples: Sample of each row, (rows,).
            variants: Variant of each row, (rows,).
        """
        with new_file(folder / _TABLE) as file:
            np.savez(file, labels=labels, groups=groups, samples=samples, variants=variants)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> BenchStore:
        """The store that `make` kept in a folder."""
        with open_regular(folder / _TABLE) as data, np.load(data, allow_pickle=False) as file:
            rows = numbered_rows(file["samples"], file["variants"])
            return cls(folder, file["labels"], file["groups"], rows)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Features of the texts and of the pictures."""
        return tuple(generated_encoder(name).folder(self.folder) for name in MODALITIES)

    @property
    def guids(self) -> list[str]:
        return [str(number) for number in range(len(self.labels))]

    def bank(self, samples: int | None = None) -> FeatureBank:
        """Opens the features of the first samples (default: of all), on the CPU."""
        rows = SampleRows(self.rows.keys, self.rows.table[:samples])
        text, image = (ModalityFeatures.open(folder, rows) for folder in self.folders)
        return FeatureBank(text, image, self.guids[:samples], self.labels[:samples].tolist())

    def source(self) -> BankSource:
        """What worker processes open."""
        return BankSource(
            {(n, DEFAULT_ENCODER): f for n, f in zip(MODALITIES, self.folders, strict=True)},
            DEFAULT_PAIR,
            dict.fromkeys(MODALITIES, self.rows),
            tuple(self.guids),
            tuple(self.labels.tolist()),
        )


def generate(folder: Path, sizes: Sizes) -> BenchStore:
    """Writes features with the shapes of BERT-base's and SwinV2-base's, and a class signal in them.

    Args:
        folder: Folder to make.
        sizes: Samples, features and positions.
    """
    for name in MODALITIES:
        generate_features(folder, sizes, name)
    return generate_table(folder, sizes)


@dataclass(frozen=True, slots=True)
class _GeneratedRows:
    """What a generated store has rows of."""

    labels: NDArray[np.int64]
    """(samples,)"""
    samples: NDArray[np.int64]
    """Sample of each row, (rows,)."""
    variants: NDArray[np.int64]
    """Variant of each row, (rows,)."""
    tokens: NDArray[np.int64]
    """Of each sample's text, (samples,)."""

    @classmethod
    def of(cls, sizes: Sizes) -> _GeneratedRows:
        """The same at every call."""
        rng = np.random.default_rng(47)
        labels = rng.choice(len(LABELS), sizes.feature_samples, p=_SHARES).astype(np.int64)
        counts = np.zeros(len(labels), np.int64)
        for label, count in report_copies(labels).items():
            counts[labels == label] = count
        every = np.arange(len(labels))
        samples = np.concatenate([every, np.repeat(every, counts)])
        variants = np.concatenate([0 * every, *(np.arange(count) + 1 for count in counts)])
        tokens = np.interp(rng.random(len(labels)), *_TOKENS).round().astype(int)
        return cls(labels, samples, variants, tokens)


def generate_features(folder: Path, sizes: Sizes, modality: str) -> None:
    """Writes the features of one modality; see `generate`."""
    drawn = _GeneratedRows.of(sizes)
    rng = np.random.default_rng([47, MODALITIES.index(modality)])
    if modality == "text":
        dim, positions, pools = sizes.text_dim, drawn.tokens, ("cls", "mean")
    else:
        dim, pools = sizes.image_dim, ("mean", "first")
        positions = np.full(len(drawn.labels), sizes.patches)
    shards = _shards(drawn.samples, drawn.labels, positions, dim, pools, rng)
    write_generated(folder, modality, shards)


def generate_table(folder: Path, sizes: Sizes) -> BenchStore:
    """Keeps what `generate_features` wrote rows of."""
    drawn = _GeneratedRows.of(sizes)
    every = np.arange(len(drawn.labels))
    return BenchStore.make(folder, drawn.labels, every, drawn.samples, drawn.variants)


def _shards(
    samples: NDArray[np.int64],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64],
    dim: int,
    pools: tuple[str, ...],
    rng: np.random.Generator,
) -> Iterator[Shard]:
    directions = rng.normal(0, _SIGNAL, (len(LABELS), dim)).astype(np.float32)
    pool = rng.standard_normal(_POOL, np.float32)
    keys = numbered_keys(len(samples))
    for first in range(0, len(samples), _SHARD_ROWS):
        part = samples[first : first + _SHARD_ROWS]
        tokens, pooled = [], []
        for sample in part:
            count = positions[sample] * dim
            start = int(rng.integers(0, _POOL - count))
            own = pool[start : start + count].reshape(-1, dim) + directions[labels[sample]]
            tokens.append(own.astype(np.float16))
            pooled.append(np.stack([own.mean(0) * 4, own[0]]).astype(np.float16))
        yield Shard(
            keys[first : first + _SHARD_ROWS],
            [""] * len(part),
            np.cumsum([0, *map(len, tokens)], dtype=np.int64),
            np.concatenate(tokens),
            np.stack(pooled),
            pools,
        )


def pack(bank: FeatureBank, groups: NDArray[np.int64], folder: Path) -> Path:
    """Writes the mean-pooled features of a bank as one small file, to be carried to a GPU.

    Args:
        bank: Features of labelled samples.
        groups: Duplicate groups, (samples,).
        folder: Where `PACKED` goes.
    """
    items = bank.items(np.arange(len(bank)), variants=True)
    text, image = bank.text.vectors(items[:, 1], "mean"), bank.image.vectors(items[:, 2], "mean")
    samples = items[:, 0].numpy()
    order = np.argsort(samples, kind="stable")
    starts = np.searchsorted(samples[order], np.arange(len(bank)))
    variant = np.empty(len(samples), np.int32)
    variant[order] = np.arange(len(samples)) - starts[samples[order]]
    content = io.BytesIO()
    np.savez(
        content,
        text=text.numpy(),
        image=image.numpy(),
        sample=samples,
        variant=variant,
        label=bank.labels.numpy(),
        group=groups,
    )
    path = resolve_declared(folder) / PACKED
    make_folders(path.parent)
    write_atomically(path, content.getbuffer())
    return path


def unpack(packed: Path, folder: Path) -> BenchStore:
    """Makes a store of what `pack` wrote: pooled vectors, no positions.

    Args:
        packed: The folder that holds `PACKED`.
        folder: Folder to make.

    Raises:
        DataError: The file is missing or is not what `pack` writes.
    """
    path = packed / PACKED
    try:
        with open_regular(path) as data, np.load(data, allow_pickle=False) as file:
            labels, groups = file["label"].astype(np.int64), file["group"].astype(np.int64)
            samples, variants = file["sample"].astype(np.int64), file["variant"].astype(np.int64)
            vectors = {name: file[name].astype(np.float16) for name in MODALITIES}
        rows = len(samples)
        for name, values in vectors.items():
            shard = Shard(
                numbered_keys(rows),
                [""] * rows,
                np.zeros(rows + 1, np.int64),
                np.empty((0, values.shape[1]), np.float16),
                values[:, None],
                ("mean",),
            )
            write_generated(folder, name, [shard])
        return BenchStore.make(folder, labels, groups, samples, variants)
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, LookupError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", "Write it with mmsa bench gpu --pack FOLDER."
        ) from error
