"""``mmsa cache ls``, ``verify`` and ``prune``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.data.stored import path_of, read_split
from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    DeviceError,
    ForbiddenCacheError,
    MmsaError,
    SettingsError,
)
from mmsa_cache.features.rows import WantedRows
from mmsa_cache.names import MODALITIES, SPLITS, near
from mmsa_cache.store.encoder import StoredEncoder
from mmsa_cache.store.keys import Keys
from mmsa_cache.store.listing import (
    WOULD,
    Removal,
    StoredFeatures,
    list_features,
    remove_features,
)
from mmsa_cache.store.older import older_caches, refuse_older, remove_older
from mmsa_cache.store.reader import verify_features
from mmsa_cache.store.writer import FeatureWriter

from ..session.session import Session
from ..session.store import Store, rows_wanted


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
    found = _existing(store.root)
    wanted = {modality: _wanted(store, modality) for modality in MODALITIES}
    return [_described(store, features, wanted[features.modality]) for features in found]


def _existing(root: Path) -> list[StoredFeatures]:
    found = list_features(root)
    if not found:
        refuse_older(root)
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    return found


def _wanted(store: Store, modality: str) -> dict[str, WantedRows]:
    """The rows that each split needs."""
    return {
        split: rows_wanted(found, found[1], modality)
        for split in SPLITS
        if (found := store.split(split)) is not None
    }


def _described(store: Store, found: StoredFeatures, wanted: dict[str, WantedRows]) -> CacheInfo:
    complete: dict[str, float] = {}
    unused, compute, problem = 0, "", found.problem
    if found.encoder is not None and not problem:
        fields = found.encoder.identity.fields
        compute = f"{fields.get('compute')} {fields.get('device')}"
        try:
            complete = {s: round(store.share(found.encoder, r), 6) for s, r in wanted.items()}
            unused = _unused(store, found, wanted)
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


def _unused(store: Store, found: StoredFeatures, wanted: dict[str, WantedRows]) -> int:
    if found.encoder is None:
        return 0
    needed = [store.places(found.encoder, rows) for rows in wanted.values()]
    used = np.unique(np.concatenate([np.empty(0, np.int64), *needed]))
    return found.rows - int((used >= 0).sum())


@dataclass(frozen=True, slots=True)
class Verified:
    """What re-hashing found."""

    cache: str
    """The folder of features, or the file of a split."""
    problems: list[str]


def verify(settings: Settings) -> list[Verified]:
    """Re-hashes every sealed shard of every encoder, and the files of the splits.

    Raises:
        CacheNotFoundError: There is no cache.
        DeviceError: A file cannot be opened now.
        ForbiddenCacheError: This user may not read a file.
    """
    root = settings.cache.dir
    found = [Verified(str(info.folder), _problems(info)) for info in _existing(root)]
    for split in SPLITS:
        path, problems = path_of(root, split), []
        if path.exists():
            try:
                read_split(path)
            except (DeviceError, ForbiddenCacheError):  # they say nothing of the file
                raise
            except MmsaError as error:
                problems.append(error.message)
            found.append(Verified(str(path), problems))
    return found


def raise_damaged(found: Sequence[Verified]) -> None:
    """Ends with damaged files, if there are any.

    Raises:
        DamagedCacheError: Names them.
    """
    problems = [problem for cache in found for problem in cache.problems]
    if problems:
        raise DamagedCacheError(
            f"{len(problems)} damaged file(s).",
            "Delete the files named and run mmsa extract: it computes their rows again.",
            problems,
        )


def _problems(found: StoredFeatures) -> list[str]:
    try:
        problems = verify_features(found.folder)
    except ForbiddenCacheError:  # as of a split
        raise
    except CacheError as error:
        problems = [error.message]
    return problems or ([found.problem] if found.problem else [])


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
        say(f"Note: {root} has no features of {encoder!r}{near(encoder, {*names})}.")
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
        wanted = _wanted(store, features.modality)
        unused = _unused(store, features, wanted)
        if not unused:
            continue
        freed = features.bytes * unused // max(1, features.rows)
        state = WOULD
        if really:
            unused, freed = _keep_needed(store.root, encoder)
            state = "removed"
        removals.append(Removal(features.folder, freed, f"{unused} rows {state}"))
    return removals


def _keep_needed(root: Path, encoder: StoredEncoder) -> tuple[int, int]:
    """Removes all other rows of an encoder; how many, and their bytes."""
    writer, modality = FeatureWriter(root, encoder), encoder.identity.modality

    def needed() -> Keys:  # by now: an extraction may have added a split, then rows of it
        wanted = _wanted(_store_with_splits(root), modality).values()
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
                        meant.add(session.folder(split, modality, name))
                    except CacheNotFoundError:
                        continue
    return meant
