"""The cache of given fields among those in a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from mmsa_cache import hashing
from mmsa_cache.errors import CacheError, CacheNotFoundError, StaleCacheError

from . import fingerprint
from .fingerprint import Fields
from .manifest import MANIFEST, RECEIPT, Manifest, read_manifest


def find_cache(parent: Path, encoder: str, fields: Fields) -> Path:
    """The folder of the finished cache with exactly these fields.

    Raises:
        StaleCacheError: Only caches with other fields are there; names those of the nearest one.
        CacheNotFoundError: None is there.
    """
    directory = parent / fingerprint.cache_name(encoder, fields)
    if (directory / MANIFEST).is_file():
        check_fields(directory, read_manifest(directory), fields)
        return directory
    if (directory / RECEIPT).is_file():
        raise CacheNotFoundError(
            f"The extraction into {directory} was not finished.", "Run mmsa extract: it resumes."
        )
    nearest = nearest_cache(parent, fields)
    if nearest is None:
        raise CacheNotFoundError(f"There is no cache in {parent}.", "Run mmsa extract.")
    raise _stale(*nearest)


def check_fields(directory: Path, manifest: Manifest, fields: Fields) -> None:
    """A folder's name has only the beginning of the fingerprint, and folders can be moved."""
    if manifest.fingerprint != hashing.digest(fields):
        raise _stale(directory, fingerprint.differences(fields, manifest.fields))


def _stale(directory: Path, differences: Sequence[str]) -> StaleCacheError:
    return StaleCacheError(
        f"The cache {directory} was made from something else.",
        "Run mmsa extract with these settings, or go back to those of the cache.",
        differences,
    )


def nearest_cache(parent: Path, fields: Fields) -> tuple[Path, list[str]] | None:
    """The finished cache that differs in the fewest fields, and these differences."""
    found = []
    for path in sorted(parent.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(CacheError):
            manifest = read_manifest(path.parent)
            found.append((path.parent, fingerprint.differences(fields, manifest.fields)))
    return min(found, key=lambda item: len(item[1]), default=None)
