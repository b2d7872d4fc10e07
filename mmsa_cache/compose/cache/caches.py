"""``mmsa cache ls``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import (
    CacheNotFoundError,
    MmsaError,
)
from mmsa_cache.features.rows import SampleRows
from mmsa_cache.names import MODALITIES, SPLITS
from mmsa_cache.store.listing import (
    StoredFeatures,
    list_features,
)
from mmsa_cache.store.older_schema import refuse_older

from ..session.store import Store, needed_rows


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The stored features of one encoder."""

    directory: Path
    modality: str
    encoder: str
    compute: str
    """Precision and kind of device of the computation."""
    rows: int
    """Sealed rows."""
    complete: dict[str, float]
    """Split → share of its rows that is stored."""
    unused: int
    """Rows that no split needs."""
    shards: int
    bytes: int
    age_days: float
    """Since something was last sealed."""
    problem: str
    """Why they cannot be read; empty if they can."""


def existing_caches(settings: Settings) -> list[CacheInfo]:
    """Describes all features of a store.

    Raises:
        CacheNotFoundError: The store has no features.
        StaleCacheError: All of them are of an older schema.
    """
    store = Store(settings.cache.dir)
    every = require_features(store.root)
    needed = {modality: rows_by_split(store, modality) for modality in MODALITIES}
    return [_describe(store, features, needed[features.modality]) for features in every]


def require_features(root: Path) -> list[StoredFeatures]:
    """All features of a store.

    Raises:
        CacheNotFoundError: There are none.
        StaleCacheError: All of them are of an older schema.
    """
    every = list_features(root)
    if not every:
        refuse_older(root)
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    return every


def rows_by_split(store: Store, modality: str) -> dict[str, SampleRows]:
    """The rows that each split needs."""
    return {
        split: needed_rows(stored, stored[1], modality)
        for split in SPLITS
        if (stored := store.split(split)) is not None
    }


def _describe(store: Store, features: StoredFeatures, needed: dict[str, SampleRows]) -> CacheInfo:
    complete: dict[str, float] = {}
    unused, compute, problem = 0, "", features.problem
    if features.encoder is not None and not problem:
        fields = features.encoder.identity.fields
        compute = f"{fields.get('compute')} {fields.get('device')}"
        try:
            complete = {
                split: round(store.completeness(features.encoder, rows), 6)
                for split, rows in needed.items()
            }
            unused = count_unused(store, features, needed)
        except MmsaError as error:
            problem = error.message
    return CacheInfo(
        features.folder,
        features.modality,
        features.label,
        compute,
        features.rows,
        complete,
        unused,
        features.shards,
        features.bytes,
        features.age_days,
        problem,
    )


def count_unused(store: Store, features: StoredFeatures, needed: dict[str, SampleRows]) -> int:
    """Number of sealed rows that no split needs."""
    if features.encoder is None:
        return 0
    indices = [store.row_indices(features.encoder, rows) for rows in needed.values()]
    used = np.unique(np.concatenate([np.empty(0, np.int64), *indices]))
    return features.rows - int((used >= 0).sum())
