"""Stores of earlier schemas: refused by number, and removed on demand."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.errors import StaleCacheError
from mmsa_cache.files.abandoned import TEMPORARY
from mmsa_cache.files.disk import DISK, discard
from mmsa_cache.names import MODALITIES, SPLITS

from .encoder import FEATURES
from .listing import FOREIGN_FILES, WOULD_BE_REMOVED, Removal
from .schema import SCHEMA_VERSION

_MANIFESTS = ("manifest.json", "manifest.partial.json")


def older_caches(root: Path) -> list[Path]:
    """Lists the feature folders of schema 1; ignores links and other folders."""
    folders = {
        path.parent
        for split in SPLITS
        for modality in MODALITIES
        for name in _MANIFESTS
        for path in (root / split / modality).glob(f"*/{name}")
    }
    return sorted(folder for folder in folders if not folder.is_symlink())


def refuse_older(root: Path) -> None:
    """Refuses a store of an older schema.

    Raises:
        StaleCacheError: The store is one.
    """
    old = older_caches(root)
    if old and not (root / FEATURES).exists():
        raise StaleCacheError(
            f"{old[0]} is a cache of schema 1, this program reads schema {SCHEMA_VERSION}.",
            "Run mmsa extract: it makes the new one in the same folder. "
            "mmsa cache prune --unused --yes then removes the old files.",
        )


def remove_older(folder: Path, *, really: bool) -> Removal:
    """Removes a feature folder of schema 1, except files that are not the program's.

    Args:
        folder: A folder of `older_caches`.
        really: If False, nothing is removed.
    """
    manifests = [folder / name for name in _MANIFESTS]
    candidates = [
        *manifests,
        *sorted(folder.glob("shard-[0-9]*.h5")),
        *folder.glob(f"{TEMPORARY}*"),
    ]
    files = [path for path in candidates if path.is_symlink() or path.is_file()]
    size = sum(path.lstat().st_size for path in files)
    if not really:
        return Removal(folder, size, WOULD_BE_REMOVED)
    for path in files:
        DISK.remove(path)  # a link is removed, never followed
    for ending in ("verified", "lock"):
        discard(folder.parent / f".{folder.name}.{ending}")
    if next(folder.iterdir(), None) is not None:
        return Removal(folder, size, FOREIGN_FILES)
    DISK.remove_folder(folder)
    return Removal(folder, size, "removed")
