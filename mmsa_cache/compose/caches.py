"""``mmsa cache ls``, ``verify`` and ``prune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    DataError,
    SettingsError,
)
from mmsa_cache.names import MODALITIES, SPLITS
from mmsa_cache.store.listing import CacheInfo, Removal, list_caches, remove_caches, stale_caches
from mmsa_cache.store.reader import verify_cache

from .session import Session


def existing_caches(settings: Settings) -> list[CacheInfo]:
    """Describes every cache.

    Raises:
        CacheNotFoundError: There is none.
    """
    root = settings.cache.dir
    found = list_caches(root)
    if not found:
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    return found


@dataclass(frozen=True, slots=True)
class Verified:
    """What re-hashing a cache found."""

    cache: str
    """Its folder."""
    complete: bool
    problems: list[str]


def verify(settings: Settings) -> list[Verified]:
    """Re-hashes every sealed shard of every cache, finished or not.

    Raises:
        CacheNotFoundError: There is no cache.
    """
    return [
        Verified(str(info.directory), info.complete, _problems(info))
        for info in existing_caches(settings)
    ]


def raise_damaged(found: Sequence[Verified]) -> None:
    """Ends with damaged files, if there are any.

    Raises:
        DamagedCacheError: Names them.
    """
    problems = [problem for cache in found for problem in cache.problems]
    if problems:
        raise DamagedCacheError(
            f"{len(problems)} damaged file(s).",
            "Delete the cache folders named and run mmsa extract again.",
            problems,
        )


def _problems(cache: CacheInfo) -> list[str]:
    try:
        found = verify_cache(cache.directory)
    except CacheError as error:
        found = [error.message]
    return found or ([cache.problem] if cache.problem else [])


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """Which caches go: those that fit every condition given."""

    unfinished: bool = False
    """Unfinished and unreadable ones."""
    stale: bool = False
    """Those that the settings do not lead to."""
    encoder: str | None = None
    """Those of this encoder."""
    older_than: float | None = None
    """Those to which nothing was added for so many days."""
    really: bool = False
    """Remove them; else only say what would go."""


def prune(settings: Settings, request: PruneRequest) -> Sequence[Removal]:
    """Removes caches.

    Raises:
        SettingsError: No condition is given.
        CacheNotFoundError: There is no cache at all.
    """
    encoder, days = request.encoder, request.older_than
    if not (request.unfinished or request.stale or encoder is not None or days is not None):
        raise SettingsError(
            "prune does not know what to remove.",
            "Give --unfinished, --stale, --encoder NAME or --older-than DAYS.",
        )
    chosen = [
        info
        for info in existing_caches(settings)
        if not (request.unfinished and info.complete)
        and (encoder is None or info.encoder == encoder)
        and (days is None or info.age_days > days)
    ]
    if request.stale and chosen:
        chosen = stale_caches(chosen, _wanted(Session(settings)))
    return remove_caches(chosen, really=request.really)


def _wanted(session: Session) -> list[Path]:
    """The caches that the settings lead to, whether they exist or not."""
    wanted = []
    for split in SPLITS:
        try:
            session.samples(split)
        except DataError:
            continue  # this layout has no such split
        wanted += [
            session.cache(split, modality, name).folder
            for modality in MODALITIES
            for name in session.settings.encoder_names(modality)
        ]
    return wanted
