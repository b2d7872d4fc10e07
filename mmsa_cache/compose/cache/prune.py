"""``mmsa cache prune``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.errors import CacheNotFoundError, ForbiddenCacheError, SettingsError
from mmsa_cache.names import MODALITIES, SPLITS, suggest_or_list
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.listing import (
    WOULD_BE_REMOVED,
    Removal,
    StoredFeatures,
    list_features,
    remove_features,
)
from mmsa_cache.store.older import older_caches, remove_older
from mmsa_cache.store.writer import FeatureWriter

from ..session.session import Session
from ..session.store import Store
from .caches import count_unused, existing_caches, wanted_of


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What goes: of the features that fit every other condition given, the rows or all of them."""

    unused: bool = False
    """Only rows that no split needs, and what a schema before this one left."""
    unfinished: bool = False
    """Those that are complete for no split, and unreadable ones."""
    stale: bool = False
    """Those that the settings do not lead to."""
    encoder: str | None = None
    """Those of this encoder."""
    older_than: float | None = None
    """Those to which nothing was added for so many days."""
    really: bool = False
    """Remove them; else only say what would go."""


def prune(settings: Settings, request: PruneRequest) -> Sequence[Removal]:
    """Removes features, or rows of them.

    Raises:
        SettingsError: No condition is given.
        CacheNotFoundError: There is no cache at all, or unused rows cannot be told.
        ForbiddenCacheError: Whether features are finished cannot be told.
    """
    encoder, days = request.encoder, request.older_than
    conditions = (request.unused, request.unfinished, request.stale)
    if not (any(conditions) or encoder is not None or days is not None):
        raise SettingsError(
            "prune does not know what to remove.",
            "Give --unused, --unfinished, --stale, --encoder NAME or --older-than DAYS.",
        )
    root = settings.cache.dir
    older = older_caches(root) if request.unused else []
    if older and not list_features(root):
        return [remove_older(folder, really=request.really) for folder in older]
    caches = existing_caches(settings)
    if encoder is not None and encoder not in (names := [info.encoder for info in caches]):
        say(f"Note: {root} has no features of {encoder!r}{suggest_or_list(encoder, {*names})}.")
    chosen = {
        info.directory
        for info in caches
        if not (request.unfinished and any(share == 1.0 for share in info.complete.values()))
        and (encoder is None or info.encoder == encoder)
        and (days is None or info.age_days > days)
    }
    if request.stale:
        chosen -= _meant(Session(settings))
    found = [features for features in list_features(root) if features.folder in chosen]
    forbidden = [f.error for f in found if isinstance(f.error, ForbiddenCacheError)]
    if request.unfinished and forbidden:
        raise forbidden[0]
    if not request.unused:
        return remove_features(found, really=request.really)
    store = _store_with_splits(root)
    return [
        *(remove_older(folder, really=request.really) for folder in older),
        *_remove_unused(store, found, really=request.really),
    ]


def _remove_unused(store: Store, found: Iterable[StoredFeatures], *, really: bool) -> list[Removal]:
    """Removes the rows that no split needs."""
    removals = []
    for features in found:
        encoder = features.encoder
        if encoder is None:
            continue
        wanted = wanted_of(store, features.modality)
        unused = count_unused(store, features, wanted)
        if not unused:
            continue
        freed = features.bytes * unused // max(1, features.rows)
        state = WOULD_BE_REMOVED
        if really:
            unused, freed = _keep_needed(store.root, encoder)
            state = "removed"
        removals.append(Removal(features.folder, freed, f"{unused} rows {state}"))
    return removals


def _keep_needed(root: Path, encoder: StoredEncoder) -> tuple[int, int]:
    """Removes all other rows of an encoder; how many, and their bytes."""
    writer, modality = FeatureWriter(root, encoder), encoder.identity.modality

    def needed() -> Keys:  # by now: an extraction may have added a split, then rows of it
        wanted = wanted_of(_store_with_splits(root), modality).values()
        return np.concatenate([rows.keys for rows in wanted])

    with writer.claim(lambda: say(f"Another process is writing {writer.folder}; waiting.")):
        return writer.keep_only(needed)


def _store_with_splits(root: Path) -> Store:
    """A store that says which rows are needed.

    Raises:
        CacheNotFoundError: It does not.
    """
    store = Store(root)
    if not any(store.split(split) for split in SPLITS):
        raise CacheNotFoundError(
            f"{root} does not say which rows its splits need.",
            "Run mmsa extract, or copy the folder data of the store too.",
        )
    return store


def _meant(session: Session) -> set[Path]:
    """The features that the settings lead to."""
    meant = set()
    for modality in MODALITIES:
        for name in session.settings.encoder_names(modality):
            for split in SPLITS:
                if session.store.split(split) is not None:
                    try:
                        meant.add(session.feature_folder(split, modality, name))
                    except CacheNotFoundError:
                        continue
    return meant
