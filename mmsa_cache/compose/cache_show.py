"""``mmsa cache show``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.disk import write_atomically
from mmsa_cache.errors import DataError
from mmsa_cache.store.listing import CachedRow, guids_of, rows_of

from .caches import existing_caches
from .pages.thumbnails import thumbnail
from .session import Session

THUMBNAIL_SIDE = 256
"""Pixels."""


@dataclass(frozen=True, slots=True)
class CachedSample:
    """What a finished cache holds of a sample."""

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
    text: str
    image: str
    """Path of its picture."""
    thumbnail: str
    """Path of a small JPEG."""
    caches: list[CachedSample]


def show(settings: Settings, guid: str, split: str) -> Shown:
    """What is known of one sample: its text and picture, and what every cache holds of it.

    Args:
        settings: The command's settings.
        guid: The sample.
        split: ``train`` or ``test``.

    Raises:
        DataError: The split has no such sample.
        CacheNotFoundError: There is no cache.
    """
    caches = [c for c in existing_caches(settings) if c.split == split and c.complete]
    session = Session(settings)
    samples = {s.guid: s for s in session.samples(split)}
    if guid not in samples:
        near = difflib.get_close_matches(guid, samples.keys() | guids_of(caches))
        raise DataError(
            f"The split {split} has no sample {guid!r}.",
            f"Names that look alike: {', '.join(near) or 'none'}.",
        )
    sample = samples[guid]
    return Shown(
        guid,
        split,
        None if sample.label is None else session.classes[sample.label],
        sample.text,
        str(sample.image_path),
        str(_thumbnail(settings, sample, split)),
        [CachedSample(c.modality, c.encoder, str(c.directory), rows_of(c, guid)) for c in caches],
    )


def _thumbnail(settings: Settings, sample: Sample, split: str) -> Path:
    """Writes a small JPEG of the picture beside the caches, if it is not there."""
    path = settings.cache.dir / ".thumbnails" / split / f"{sample.image_sha256[:16]}.jpg"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, thumbnail(sample.image_path, THUMBNAIL_SIDE).jpeg)
    return path
