"""``mmsa cache``: ls, verify, prune, show."""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.dataset import SPLITS, Sample
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import (
    CacheError,
    CacheNotFoundError,
    DamagedCacheError,
    DataError,
    SettingsError,
)
from mmsa_cache.store.fingerprint import cache_name
from mmsa_cache.store.listing import (
    CacheInfo,
    guids_of,
    list_caches,
    remove_caches,
    rows_of,
    stale_caches,
)
from mmsa_cache.store.store import verify_cache

from .samples import MODALITIES, cache_folder, classes_of, copies_of, load_samples

THUMBNAIL_SIDE = 256
"""Pixels."""


def ls(settings: Settings) -> list[dict[str, Any]]:
    """One record a cache folder.

    Raises:
        CacheNotFoundError: There is none.
    """
    return [{**asdict(info), "directory": str(info.directory)} for info in _caches(settings)]


def _caches(settings: Settings) -> list[CacheInfo]:
    root = settings.cache.dir
    found = list_caches(root)
    if not found:
        raise CacheNotFoundError(f"There is no cache in {root}.", "Run mmsa extract.")
    return found


def verify(settings: Settings, show: Callable[[list[dict[str, Any]]], None]) -> None:
    """Re-hashes every sealed shard of every cache, finished or not.

    Args:
        settings: The command's settings.
        show: Called with a record a cache, before anything is raised.

    Raises:
        CacheNotFoundError: There is no cache.
        DamagedCacheError: Names the damaged files.
    """
    records: list[dict[str, Any]] = [
        {"cache": str(c.directory), "complete": c.complete, "problems": _problems(c)}
        for c in _caches(settings)
    ]
    show(records)
    problems = [problem for record in records for problem in record["problems"]]
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
    chosen = _caches(settings)
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
    from extract.engine import plan_rows

    from .pipeline import locate

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


def show(settings: Settings, guid: str, split: str) -> dict[str, Any]:
    """What is known of one sample: its text and picture, and what every cache holds of it.

    Args:
        settings: The command's settings.
        guid: The sample.
        split: ``train`` or ``test``.

    Returns:
        ``guid``, ``split``, ``tag``, ``text``, ``image`` and ``thumbnail`` (paths), and ``caches``:
        modality, encoder, and a record a variant (see `caches.rows_of`).

    Raises:
        DataError: The split has no such sample.
        CacheNotFoundError: There is no cache.
    """
    caches = [c for c in _caches(settings) if c.split == split and c.complete]
    samples = {s.guid: s for s in load_samples(settings, split)}
    if guid not in samples:
        near = difflib.get_close_matches(guid, samples.keys() | guids_of(caches))
        raise DataError(
            f"The split {split} has no sample {guid!r}.",
            f"Names that look alike: {', '.join(near) or 'none'}.",
        )
    sample = samples[guid]
    return {
        "guid": guid,
        "split": split,
        "tag": None if sample.label is None else classes_of(settings)[sample.label],
        "text": sample.text,
        "image": str(sample.image_path),
        "thumbnail": str(_thumbnail(settings, sample, split)),
        "caches": [
            {
                "modality": c.modality,
                "encoder": c.encoder,
                "directory": str(c.directory),
                "rows": rows_of(c, guid),
            }
            for c in caches
        ],
    }


def _thumbnail(settings: Settings, sample: Sample, split: str) -> Path:
    """Writes a small JPEG of the picture beside the caches, if it is not there."""
    from PIL import Image

    from extract.inputs.decode import decode

    path = settings.cache.dir / ".thumbnails" / split / f"{sample.image_sha256[:16]}.jpg"
    if not path.is_file():
        pixels = decode(sample.image_path.read_bytes(), sample.image_path.name, THUMBNAIL_SIDE)
        image = Image.fromarray(pixels)
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    return path
