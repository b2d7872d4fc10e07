"""``mmsa cache verify``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.stored import read_split, split_path
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

from .caches import features_of


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
    found = [Verified(str(info.folder), _problems(info)) for info in features_of(root)]
    for split in SPLITS:
        path, problems = split_path(root, split), []
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
