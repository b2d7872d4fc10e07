"""Hashes of values and of files."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from .untrusted import open_regular


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(fields: Mapping[str, object]) -> str:
    """sha256 over the canonical form of all fields (hex)."""
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes (hex).

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    try:
        file = open_regular(path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()
