"""``mmsa cache ls`` and ``verify``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import CacheError, CacheNotFoundError, DamagedCacheError
from mmsa_cache.store.listing import CacheInfo, list_caches
from mmsa_cache.store.reader import verify_cache


def ls(settings: Settings) -> list[dict[str, Any]]:
    """One record a cache folder.

    Raises:
        CacheNotFoundError: There is none.
    """
    return [
        {**asdict(info), "directory": str(info.directory)} for info in existing_caches(settings)
    ]


def existing_caches(settings: Settings) -> list[CacheInfo]:
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
        for c in existing_caches(settings)
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
