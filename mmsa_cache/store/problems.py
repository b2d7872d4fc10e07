"""Errors of the store's files: damage, permissions and exhausted resources."""

from __future__ import annotations

from pathlib import Path

from mmsa_cache.errors import (
    DamagedCacheError,
    ForbiddenCacheError,
    MmsaError,
    error_reason,
    is_exhausted,
    limit_error,
)

REPAIR = "Delete the file and run mmsa extract: it computes the rows again."
MISSING = "Run mmsa extract: it computes the rows of missing shards again."


def rebuild_hint(folder: Path) -> str:
    """Hint for a folder that cannot be repaired."""
    return f"Delete the folder {folder} and run mmsa extract again."


def read_error(path: Path, error: Exception, hint: str = REPAIR) -> MmsaError:
    """The error of a file that cannot be read: damage, a permission or an exhausted resource."""
    reason = error_reason(error)
    if is_exhausted(error):
        return limit_error(path, reason or "no memory")
    message = f"{path} cannot be read: {reason}."
    if isinstance(error, PermissionError):
        return ForbiddenCacheError(path)
    return DamagedCacheError(message, hint)
