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
    """What is stored of one variant of a sample."""

    variant: int
    operation: str
    positions: int
    """Positions kept."""
    token_norm: float | None
    """Mean Euclidean norm of the positions; None without any."""
    pool_norms: dict[str, float]


@dataclass(frozen=True, slots=True)
class CachedSample:
    """What the features of one encoder hold of a sample."""

    modality: str
    encoder: str
    directory: str
    rows: list[CachedRow]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of a sample."""

    guid: str
    split: str
    tag: str | None
    text: str | None
    image: str | None
    """Path of its picture; None where the data is not at hand."""
    thumbnail: str | None
    """Path of a small JPEG."""
    caches: list[CachedSample]


def show(settings: Settings, guid: str, split: str) -> Shown:
    """What is known of one sample: its text and picture, and what is stored of it.

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
    place = guids.index(guid)
    sample = samples[place]
    return Shown(
        guid,
        split,
        None if sample.label is None else session.classes[sample.label],
        sample.text,
        None if sample.image_path is None else str(sample.image_path),
        _thumbnail(settings, sample, split),
        [
            CachedSample(
                modality,
                found.label,
                str(found.folder),
                _rows(
                    open_features(found.folder, verify=False), session.rows(split, modality), place
                ),
            )
            for modality in MODALITIES
            for found in session.store.features
            if found.modality == modality and found.rows
        ],
    )


def _rows(features: Features, wanted: SampleRows, sample: int) -> list[CachedRow]:
    """What is stored of one sample, variant by variant."""
    variants = [v for v, place in enumerate(wanted.table[sample].tolist()) if place >= 0]
    places = features.find_rows(wanted.keys[wanted.table[sample, variants]])
    return [
        _row(features, variant, int(place))
        for variant, place in zip(variants, places, strict=True)
        if place >= 0
    ]


def _row(features: Features, variant: int, place: int) -> CachedRow:
    number = int(np.searchsorted(features.starts, place, side="right")) - 1
    shard, row = features.shards[number], place - int(features.starts[number])
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


def _thumbnail(settings: Settings, sample: Sample, split: str) -> str | None:
    """Writes a small JPEG of the picture beside the store, if it is not there."""
    path: Path = settings.cache.dir / ".thumbnails" / split / f"{sample.image_sha256[:16]}.jpg"
    if not path.is_file():
        if sample.image_path is None:
            return None
        small = thumbnail(sample.image_path, THUMBNAIL_SIDE).jpeg
        try:
            make_folders(path.parent)
            write_atomically(path, small)
        except (OSError, DiskError):  # a store that is only read has none
            return None
    return str(path)
