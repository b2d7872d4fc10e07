"""Lists, shows and removes caches. No model code."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from mmsa_cache.disk import TEMPORARY
from mmsa_cache.errors import CacheError
from mmsa_cache.names import MODALITIES, SPLITS

from .identity import EncoderIdentity
from .manifest import MANIFEST, RECEIPT, lock_path, note_path, read_manifest
from .reader import open_shards
from .schema import SHARED, Shard

_DAY = 24 * 3600.0
_SHARDS = "shard-[0-9]*.h5"


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """One cache folder."""

    directory: Path
    split: str
    modality: str
    encoder: str
    rows: int
    """Rows that are sealed."""
    rows_wanted: int
    variants: int
    """Largest variant number that is sealed; 0 where there are originals only."""
    bytes: int
    age_days: float
    """Since something was last sealed."""
    complete: bool
    operations: dict[str, int]
    """Augmentation → rows."""
    problem: str
    """Why it cannot be read; empty where it can."""


def list_caches(root: Path) -> list[CacheInfo]:
    """Describes every folder under ``ROOT/SPLIT/MODALITY``; faulty ones are listed too.

    Folders of other names and links to folders are ignored.
    """
    folders = {
        path.parent
        for split in SPLITS
        for modality in MODALITIES
        for name in (MANIFEST, RECEIPT, _SHARDS)
        for path in (root / split / modality).glob(f"*/{name}")
    }
    return [_describe(folder) for folder in sorted(folders) if not folder.is_symlink()]


def _describe(folder: Path) -> CacheInfo:
    name = MANIFEST if (folder / MANIFEST).is_file() else RECEIPT
    encoder, rows, wanted, variants, problem = folder.name, 0, 0, 0, ""
    operations: Counter[str] = Counter()
    try:
        manifest = read_manifest(folder, name)
        fields = {**manifest.fields, "modality": folder.parent.name}
        fields["encoder"] = str(fields.get("encoder", encoder))
        encoder = EncoderIdentity.of_fields(fields).label
        rows = sum(entry.rows for entry in manifest.shards)
        wanted = manifest.rows
        for shard in open_shards(folder, name=name, verify=False):
            variants = max(variants, int(shard.variant.max(initial=0)))
            operations.update(operation for operation in shard.operations if operation)
    except CacheError as error:
        problem = error.message
    files = [path.stat() for path in folder.iterdir() if path.is_file()]
    newest = max((stat.st_mtime for stat in files), default=0.0)
    return CacheInfo(
        folder,
        folder.parent.parent.name,
        folder.parent.name,
        encoder,
        rows,
        wanted,
        variants,
        sum(stat.st_size for stat in files),
        max(0.0, time.time() - newest) / _DAY,
        name == MANIFEST and not problem,
        dict(sorted(operations.items())),
        problem,
    )


@dataclass(frozen=True, slots=True)
class Removal:
    """The outcome for one cache."""

    directory: Path
    bytes: int
    state: str
    """``removed``, ``removed but for …``, ``would be removed`` or ``in use``."""


def remove_caches(caches: Iterable[CacheInfo], *, really: bool) -> list[Removal]:
    """Removes caches.

    The manifest goes first: an interrupted removal leaves an unfinished cache, not a damaged one.
    A cache that an extraction is writing is not removed.

    Args:
        caches: Of `list_caches`.
        really: False only lists what would be removed.
    """
    return [
        Removal(info.directory, info.bytes, _remove(info.directory) if really else _WOULD)
        for info in caches
    ]


_WOULD = "would be removed"


def _remove(folder: Path) -> str:
    lock = FileLock(lock_path(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return "in use"
    try:
        first = [folder / MANIFEST, folder / RECEIPT]
        for path in [*first, *sorted(folder.glob(_SHARDS)), *folder.glob(f"{TEMPORARY}*")]:
            path.unlink(missing_ok=True)  # a link is removed, never followed
        note_path(folder).unlink(missing_ok=True)
        if next(folder.iterdir(), None) is not None:
            return "removed but for files that are no cache's"
        folder.rmdir()
    finally:
        lock.release()
    return "removed"


def guids_of(caches: Iterable[CacheInfo]) -> set[str]:
    """Names of all samples in finished caches."""
    return {
        guid
        for info in caches
        if info.complete
        for shard in open_shards(info.directory, verify=False)
        for guid in shard.guids
    }


@dataclass(frozen=True, slots=True)
class CachedRow:
    """What a cache holds of one variant of a sample."""

    variant: int
    operation: str
    positions: int
    """Positions kept."""
    token_norm: float | None
    """Mean Euclidean norm of the positions; None without any."""
    pool_norms: dict[str, float]


def rows_of(info: CacheInfo, guid: str) -> list[CachedRow]:
    """What a finished cache holds of one sample, variant by variant."""
    found = [
        _row(shard, row)
        for shard in open_shards(info.directory, verify=False)
        for row, name in enumerate(shard.guids)
        if name == guid
    ]
    return sorted(found, key=lambda row: row.variant)


def _row(shard: Shard, row: int) -> CachedRow:
    tokens = np.asarray(shard.tokens[shard.offsets[row] : shard.offsets[row + 1]], np.float32)
    pools = dict(zip(shard.pools, shard.pooled[row], strict=True))
    if shard.shared is not None:
        pools[SHARED] = shard.shared[row]
    return CachedRow(
        int(shard.variant[row]),
        shard.operations[row],
        len(tokens),
        float(np.linalg.norm(tokens, axis=1).mean()) if len(tokens) else None,
        {name: float(np.linalg.norm(vector.astype(np.float32))) for name, vector in pools.items()},
    )


def stale_caches(caches: Iterable[CacheInfo], wanted: Iterable[Path]) -> list[CacheInfo]:
    """Caches that are not among those wanted, of the splits and modalities that are."""
    keep = {path.resolve() for path in wanted}
    places: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for path in keep:
        places[path.parent.parent.name, path.parent.name].add(path)
    return [
        info
        for info in caches
        if (info.split, info.modality) in places and info.directory.resolve() not in keep
    ]
