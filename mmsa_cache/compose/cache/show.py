"""``mmsa cache show``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.errors import DataError, DiskError
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.files.disk import make_folders, write_atomically
from mmsa_cache.names import MODALITIES, unknown_name
from mmsa_cache.store.reader import Features, open_features
from mmsa_cache.store.schema import SHARED

from ..pages.thumbnails import thumbnail
from ..session.session import Session

THUMBNAIL_SIDE = 256
"""Pixels."""


@dataclass(frozen=True, slots=True)
class CachedRow:
    """The stored features of one variant of a sample."""

    variant: int
    operation: str
    positions: int
    """Number of stored positions."""
    token_norm: float | None
    """Mean Euclidean norm of the positions; None without positions."""
    pool_norms: dict[str, float]


@dataclass(frozen=True, slots=True)
class CachedSample:
    """The stored features of a sample by one encoder."""

    modality: str
    encoder: str
    directory: str
    rows: list[CachedRow]


@dataclass(frozen=True, slots=True)
class SampleDetails:
    """A sample and its stored features."""

    guid: str
    split: str
    tag: str | None
    text: str | None
    image: str | None
    """Path of its picture; None if the data is not on this machine."""
    thumbnail: str | None
    """Path of a small JPEG."""
    caches: list[CachedSample]


def show(settings: Settings, guid: str, split: str) -> SampleDetails:
    """Describes a sample and its stored features.

    Args:
        settings: The command's settings.
        guid: The sample.
        split: One of `SPLITS`.

    Raises:
        DataError: The split has no such sample.
    """
    session = Session(settings)
    samples = session.samples(split)
    guids = samples.guids
    if guid not in guids:
        raise unknown_name(f"The split {split} has no sample", guid, guids, kind=DataError)
    index = guids.index(guid)
    sample = samples[index]
    return SampleDetails(
        guid,
        split,
        None if sample.label is None else session.classes[sample.label],
        sample.text,
        None if sample.image_path is None else str(sample.image_path),
        _make_thumbnail(settings, sample, split),
        [
            CachedSample(
                modality,
                stored.label,
                str(stored.folder),
                _rows(
                    open_features(stored.folder, verify=False), session.rows(split, modality), index
                ),
            )
            for modality in MODALITIES
            for stored in session.store.features
            if stored.modality == modality and stored.rows
        ],
    )


def _rows(features: Features, rows: SampleRows, sample: int) -> list[CachedRow]:
    """The stored rows of one sample, variant by variant."""
    variants = np.flatnonzero(rows.table[sample] >= 0)
    indices = features.find_rows(rows.keys[rows.table[sample, variants]])
    return [
        _row(features, variant, index)
        for variant, index in zip(variants.tolist(), indices.tolist(), strict=True)
        if index >= 0
    ]


def _row(features: Features, variant: int, index: int) -> CachedRow:
    number = int(np.searchsorted(features.starts, index, side="right")) - 1
    shard, row = features.shards[number], index - int(features.starts[number])
    tokens = np.asarray(shard.tokens[shard.offsets[row] : shard.offsets[row + 1]], np.float32)
    pools = dict(zip(shard.pools, shard.pooled[row], strict=True))
    if shard.shared is not None:
        pools[SHARED] = shard.shared[row]
    return CachedRow(
        variant,
        shard.operations[row],
        len(tokens),
        float(np.linalg.norm(tokens, axis=1).mean()) if len(tokens) else None,
        {name: float(np.linalg.norm(vector.astype(np.float32))) for name, vector in pools.items()},
    )


def _make_thumbnail(settings: Settings, sample: Sample, split: str) -> str | None:
    """Writes a small JPEG of the picture beside the store, if it is not there."""
    path: Path = settings.cache.dir / ".thumbnails" / split / f"{sample.image_sha256[:16]}.jpg"
    if not path.is_file():
        if sample.image_path is None:
            return None
        small = thumbnail(sample.image_path, THUMBNAIL_SIDE).jpeg
        try:
            make_folders(path.parent)
            write_atomically(path, small)
        except (OSError, DiskError):  # the store may be read-only
            return None
    return str(path)
