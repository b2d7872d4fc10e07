"""Stores of features to measure training on: generated ones, and packed real ones."""

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
"""Packed features: ``text`` and ``image`` (rows, dim) float16, ``sample`` and ``variant`` (rows,),
``label`` and ``group`` (samples,)."""
_TOKENS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0), (3, 14, 16, 22, 30, 39, 49, 54, 128)
"""Quantiles, and MiniLM's tokens of the 4,511 tweets of MVSA-Single at these."""
_CLASS_SHARES = (0.597, 0.105, 0.298)
_SIGNAL = 0.3
"""Length of a class's direction, relative to the noise."""
_SHARD_ROWS = 256
_TABLE = "table.npz"
_NOISE_SIZE = 1 << 22
"""Random numbers that all rows are cut from, since drawing all would take longer than training."""


@dataclass(frozen=True, slots=True)
class BenchStore:
    """Features of a data set on disk, with the labels and groups that a search needs."""

    folder: Path
    labels: NDArray[np.int64]
    """(samples,)"""
    groups: NDArray[np.int64]
    """Duplicate groups, (samples,)."""
    rows: SampleRows
    """Rows of each modality."""

    @classmethod
    def make(
        cls,
        folder: Path,
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        samples: NDArray[np.int64],
        variants: NDArray[np.int64],
    ) -> BenchStore:
        """Writes the table of a store beside its features.

        Args:
            folder: Folder of the features.
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
        """Opens a store that `make` wrote."""
        with open_regular(folder / _TABLE) as data, np.load(data, allow_pickle=False) as file:
            rows = numbered_rows(file["samples"], file["variants"])
            return cls(folder, file["labels"], file["groups"], rows)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the text and the picture features."""
        return tuple(generated_encoder(name).folder(self.folder) for name in MODALITIES)

    @property
    def guids(self) -> list[str]:
        return [str(number) for number in range(len(self.labels))]

    def bank(self, samples: int | None = None) -> FeatureBank:
        """Opens the features of the first samples on the CPU; default: all samples."""
        rows = SampleRows(self.rows.keys, self.rows.table[:samples])
        text, image = (ModalityFeatures.open(folder, rows) for folder in self.folders)
        return FeatureBank(text, image, self.guids[:samples], self.labels[:samples].tolist())

    def source(self) -> BankSource:
        """The features for worker processes to open."""
        return BankSource(
            {(n, DEFAULT_ENCODER): f for n, f in zip(MODALITIES, self.folders, strict=True)},
            DEFAULT_PAIR,
            dict.fromkeys(MODALITIES, self.rows),
            tuple(self.guids),
            tuple(self.labels.tolist()),
        )


def generate(folder: Path, sizes: Sizes) -> BenchStore:
    """Writes random features in the shapes of BERT-base and SwinV2-base, with a class signal.

    Args:
        folder: Folder to make.
        sizes: Numbers of samples, features and positions.
    """
    for name in MODALITIES:
        generate_features(folder, sizes, name)
    return generate_table(folder, sizes)


@dataclass(frozen=True, slots=True)
class _GeneratedRows:
    """Samples and rows of a generated store."""

    labels: NDArray[np.int64]
    """(samples,)"""
    samples: NDArray[np.int64]
    """Sample of each row, (rows,)."""
    variants: NDArray[np.int64]
    """Variant of each row, (rows,)."""
    tokens: NDArray[np.int64]
    """Tokens of each sample's text, (samples,)."""

    @classmethod
    def draw(cls, sizes: Sizes) -> _GeneratedRows:
        """Draws them; the same at every call."""
        rng = np.random.default_rng(47)
        labels = rng.choice(len(LABELS), sizes.feature_samples, p=_CLASS_SHARES).astype(np.int64)
        counts = np.zeros(len(labels), np.int64)
        for label, count in report_copies(labels).items():
            counts[labels == label] = count
        originals = np.arange(len(labels))
        samples = np.concatenate([originals, np.repeat(originals, counts)])
        variants = np.concatenate([0 * originals, *(np.arange(count) + 1 for count in counts)])
        tokens = np.interp(rng.random(len(labels)), *_TOKENS).round().astype(int)
        return cls(labels, samples, variants, tokens)


def generate_features(folder: Path, sizes: Sizes, modality: str) -> None:
    """Writes the features of one modality; see `generate`."""
    rows = _GeneratedRows.draw(sizes)
    rng = np.random.default_rng([47, MODALITIES.index(modality)])
    if modality == "text":
        dim, positions, pools = sizes.text_dim, rows.tokens, ("cls", "mean")
    else:
        dim, pools = sizes.image_dim, ("mean", "first")
        positions = np.full(len(rows.labels), sizes.patches)
    shards = _shards(rows.samples, rows.labels, positions, dim, pools, rng)
    write_generated(folder, modality, shards)


def generate_table(folder: Path, sizes: Sizes) -> BenchStore:
    """Writes the table for `generate_features`."""
    rows = _GeneratedRows.draw(sizes)
    groups = np.arange(len(rows.labels))
    return BenchStore.make(folder, rows.labels, groups, rows.samples, rows.variants)


def _shards(
    samples: NDArray[np.int64],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64],
    dim: int,
    pools: tuple[str, ...],
    rng: np.random.Generator,
) -> Iterator[Shard]:
    directions = rng.normal(0, _SIGNAL, (len(LABELS), dim)).astype(np.float32)
    noise = rng.standard_normal(_NOISE_SIZE, np.float32)
    keys = numbered_keys(len(samples))
    for first in range(0, len(samples), _SHARD_ROWS):
        shard_samples = samples[first : first + _SHARD_ROWS]
        tokens, pooled = [], []
        for sample in shard_samples:
            count = positions[sample] * dim
            start = int(rng.integers(0, _NOISE_SIZE - count))
            row = noise[start : start + count].reshape(-1, dim) + directions[labels[sample]]
            tokens.append(row.astype(np.float16))
            pooled.append(np.stack([row.mean(0) * 4, row[0]]).astype(np.float16))
        yield Shard(
            keys[first : first + _SHARD_ROWS],
            [""] * len(shard_samples),
            np.cumsum([0, *map(len, tokens)], dtype=np.int64),
            np.concatenate(tokens),
            np.stack(pooled),
            pools,
        )


def pack(bank: FeatureBank, groups: NDArray[np.int64], folder: Path) -> Path:
    """Writes the mean-pooled features of a bank to one small file, for another machine.

    Args:
        bank: Features of labelled samples.
        groups: Duplicate groups, (samples,).
        folder: Folder of the file `PACKED`.
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
    """Makes a store from the file of `pack`: pooled vectors without positions.

    Args:
        packed: Folder of the file `PACKED`.
        folder: Folder to make.

    Raises:
        DataError: The file is missing or malformed.
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
