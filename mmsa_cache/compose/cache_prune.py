"""``mmsa cache prune``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from extract.plan import plan_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import DataError, SettingsError
from mmsa_cache.names import MODALITIES, SPLITS
from mmsa_cache.store.fingerprint import cache_name
from mmsa_cache.store.listing import remove_caches, stale_caches

from .cache_identity import cache_folder, copies_of
from .caches import existing_caches
from .locate import locate
from .samples import load_samples


def prune(
    settings: Settings,
    *,
    unfinished: bool,
    stale: bool,
    encoder: str | None,
    older_than: float | None,
    really: bool,
) -> list[dict[str, Any]]:
    """Removes caches that fit every condition given; only says so unless ``really``.

    Args:
        settings: The command's settings.
        unfinished: Unfinished and unreadable ones.
        stale: Those that the settings do not lead to.
        encoder: Those of this encoder.
        older_than: Those to which nothing was added for so many days.
        really: Do it.

    Raises:
        SettingsError: No condition is given.
        CacheNotFoundError: There is no cache at all.
    """
    if not (unfinished or stale or encoder is not None or older_than is not None):
        raise SettingsError(
            "prune does not know what to remove.",
            "Give --unfinished, --stale, --encoder NAME or --older-than DAYS.",
        )
    chosen = existing_caches(settings)
    if unfinished:
        chosen = [c for c in chosen if not c.complete]
    if encoder is not None:
        chosen = [c for c in chosen if c.encoder == encoder]
    if older_than is not None:
        chosen = [c for c in chosen if c.age_days > older_than]
    if stale and chosen:
        chosen = stale_caches(chosen, _wanted(settings))
    removals = remove_caches(chosen, really=really)
    return [{**asdict(removal), "directory": str(removal.directory)} for removal in removals]


def _wanted(settings: Settings) -> list[Path]:
    """The caches that the settings lead to, whether they are there or not."""
    wanted = []
    for split in SPLITS:
        try:
            samples = load_samples(settings, split)
        except DataError:
            continue  # this layout has no such split
        rows = [
            (row.sample, row.variant)
            for row in plan_rows(samples, copies_of(settings, split, samples))
        ]
        for modality in MODALITIES:
            for name in settings.encoder_names(modality):
                own = settings.with_encoder(modality, name)
                spec, fields = locate(own, split, modality, rows)
                wanted.append(cache_folder(own, split, modality) / cache_name(spec.name, fields))
    return wanted
