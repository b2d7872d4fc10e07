"""``mmsa cache show``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import DataError
from mmsa_cache.store.listing import guids_of, rows_of

from .caches import existing_caches
from .pages.thumbnails import thumbnail
from .samples import classes_of, load_samples

THUMBNAIL_SIDE = 256
"""Pixels."""


def show(settings: Settings, guid: str, split: str) -> dict[str, Any]:
    """What is known of one sample: its text and picture, and what every cache holds of it.

    Args:
        settings: The command's settings.
        guid: The sample.
        split: ``train`` or ``test``.

    Returns:
        ``guid``, ``split``, ``tag``, ``text``, ``image`` and ``thumbnail`` (paths), and ``caches``:
        modality, encoder, and a record a variant (see `listing.rows_of`).

    Raises:
        DataError: The split has no such sample.
        CacheNotFoundError: There is no cache.
    """
    caches = [c for c in existing_caches(settings) if c.split == split and c.complete]
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
    path = settings.cache.dir / ".thumbnails" / split / f"{sample.image_sha256[:16]}.jpg"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, thumbnail(sample.image_path, THUMBNAIL_SIDE).jpeg)
    return path
