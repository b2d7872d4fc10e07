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
from mmsa_cache.store.older import refuse_older

from ..session.store import Store, needed_rows


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The features of one encoder."""

    directory: Path
    modality: str
    encoder: str
    compute: str
    """Precision and kind of device that they were computed with."""
    rows: int
    """Rows that are sealed."""
    complete: dict[str, float]
    """Split → share of its rows that is there."""
    unused: int
    """Rows that no split needs."""
    shards: int
    bytes: int
    age_days: float
    """Since something was last sealed."""
    problem: str
    """Why they cannot be read; empty where they can."""


def existing_caches(settings: Settings) -> list[CacheInfo]:
    """Describes all features.

    Raises:
        CacheNotFoundError: There are none.
        StaleCacheError: There are only those of an older schema.
    """
    store = Store(settings.cache.dir)
    found = features_of(store.root)
    wanted = {modality: wanted_of(store, modality) for modality in MODALITIES}
    return [_described(store, features, wanted[features.modality]) for features in found]


def features_of(root: Path) -> list[StoredFeatures]:
    """All features of a store.

    Raises:
        CacheNotFoundError: There are none.
        StaleCacheError: There are only those of an older schema.
    """
    found = list_features(root)
    if not found:
        refuse_older(root)
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    return found


def wanted_of(store: Store, modality: str) -> dict[str, SampleRows]:
    """The rows that each split needs."""
    return {
        split: needed_rows(found, found[1], modality)
        for split in SPLITS
        if (found := store.split(split)) is not None
    }


def _described(store: Store, found: StoredFeatures, wanted: dict[str, SampleRows]) -> CacheInfo:
    complete: dict[str, float] = {}
    unused, compute, problem = 0, "", found.problem
    if found.encoder is not None and not problem:
        fields = found.encoder.identity.fields
        compute = f"{fields.get('compute')} {fields.get('device')}"
        try:
            complete = {
                s: round(store.completeness(found.encoder, r), 6) for s, r in wanted.items()
            }
            unused = count_unused(store, found, wanted)
        except MmsaError as error:
            problem = error.message
    return CacheInfo(
        found.folder,
        found.modality,
        found.label,
        compute,
        found.rows,
        complete,
        unused,
        found.shards,
        found.bytes,
        found.age_days,
        problem,
    )


def count_unused(store: Store, found: StoredFeatures, wanted: dict[str, SampleRows]) -> int:
    """Sealed rows that no split needs."""
    if found.encoder is None:
        return 0
    needed = [store.row_indices(found.encoder, rows) for rows in wanted.values()]
    used = np.unique(np.concatenate([np.empty(0, np.int64), *needed]))
    return found.rows - int((used >= 0).sum())
