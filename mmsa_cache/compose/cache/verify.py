"""``mmsa cache verify``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.stored_split import read_split, split_path
from mmsa_cache.errors import (
    CacheError,
    DamagedCacheError,
    DeviceError,
    ForbiddenCacheError,
    MmsaError,
)
from mmsa_cache.names import SPLITS
from mmsa_cache.store.listing import StoredFeatures
from mmsa_cache.store.reader import verify_features

from .caches import require_features


@dataclass(frozen=True, slots=True)
class Verified:
    """The problems of features or of a split."""

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
    results = [Verified(str(stored.folder), _problems(stored)) for stored in require_features(root)]
    for split in SPLITS:
        path, problems = split_path(root, split), []
        if path.exists():
            try:
                read_split(path)
            except (DeviceError, ForbiddenCacheError):  # the file may be whole
                raise
            except MmsaError as error:
                problems.append(error.message)
            results.append(Verified(str(path), problems))
    return results


def raise_damaged(results: Sequence[Verified]) -> None:
    """Raises an error if files are damaged.

    Raises:
        DamagedCacheError: Lists them.
    """
    problems = [problem for result in results for problem in result.problems]
    if problems:
        raise DamagedCacheError(
            f"{len(problems)} damaged file(s).",
            "Delete the files named and run mmsa extract: it computes their rows again.",
            problems,
        )


def _problems(stored: StoredFeatures) -> list[str]:
    try:
        problems = verify_features(stored.folder)
    except ForbiddenCacheError:  # the files may be whole
        raise
    except CacheError as error:
        problems = [error.message]
    return problems or ([stored.problem] if stored.problem else [])
