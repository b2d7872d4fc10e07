"""``mmsa cache prune``."""

from __future__ import annotations

import contextlib
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
from mmsa_cache.store.older_schema import older_caches, remove_older
from mmsa_cache.store.writer import FeatureWriter

from ..session.session import Session
from ..session.store import Store
from .caches import count_unused, existing_caches, rows_by_split


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """Conditions of the features to remove, all of which must hold."""

    unused: bool = False
    """Only rows that no split needs, and files of an older schema."""
    unfinished: bool = False
    """Features that are complete for no split, and unreadable ones."""
    stale: bool = False
    """Features that the settings do not select."""
    encoder: str | None = None
    """Features of this encoder."""
    older_than: float | None = None
    """Features to which nothing was added for so many days."""
    really: bool = False
    """Whether to remove them; else they are only listed."""


def prune(settings: Settings, request: PruneRequest) -> Sequence[Removal]:
    """Removes features, or rows of them.

    Raises:
        SettingsError: No condition is given.
        CacheNotFoundError: There is no cache, or it does not know which rows are unused.
        ForbiddenCacheError: Features cannot be read, so that they may be finished.
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
        chosen -= _selected_folders(Session(settings))
    selected = [features for features in list_features(root) if features.folder in chosen]
    forbidden = [f.error for f in selected if isinstance(f.error, ForbiddenCacheError)]
    if request.unfinished and forbidden:
        raise forbidden[0]
    if not request.unused:
        return remove_features(selected, really=request.really)
    store = _store_with_splits(root)
    return [
        *(remove_older(folder, really=request.really) for folder in older),
        *_remove_unused(store, selected, really=request.really),
    ]


def _remove_unused(
    store: Store, selected: Iterable[StoredFeatures], *, really: bool
) -> list[Removal]:
    """Removes the rows that no split needs."""
    removals = []
    for features in selected:
        encoder = features.encoder
        if encoder is None:
            continue
        unused = count_unused(store, features, rows_by_split(store, features.modality))
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
    """Removes the rows of an encoder that no split needs.

    Returns:
        The number of removed rows, and their bytes.
    """
    writer, modality = FeatureWriter(root, encoder), encoder.identity.modality

    def needed() -> Keys:  # read again: an extraction may have added a split
        rows_of_splits = rows_by_split(_store_with_splits(root), modality).values()
        return np.concatenate([rows.keys for rows in rows_of_splits])

    with writer.claim(lambda: say(f"Another process is writing {writer.folder}; waiting.")):
        return writer.keep_only(needed)


def _store_with_splits(root: Path) -> Store:
    """Opens a store that has the rows of its splits.

    Raises:
        CacheNotFoundError: It has not.
    """
    store = Store(root)
    if not any(store.split(split) for split in SPLITS):
        raise CacheNotFoundError(
            f"{root} does not say which rows its splits need.",
            "Run mmsa extract, or copy the folder data of the store too.",
        )
    return store


def _selected_folders(session: Session) -> set[Path]:
    """Folders of the features that the settings select."""
    folders = set()
    for modality in MODALITIES:
        for name in session.settings.encoder_names(modality):
            for split in SPLITS:
                if session.store.split(split) is not None:
                    with contextlib.suppress(CacheNotFoundError):
                        folders.add(session.feature_folder(split, modality, name))
    return folders
