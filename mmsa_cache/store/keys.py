"""Keys of rows: 16-byte hashes of what a row is computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 16
Keys = NDArray[np.uint8]
"""Keys, (rows, 16)."""


def content_keys(digests: NDArray[np.uint8]) -> Keys:
    """Keys of originals: the first half of the sha256 of their contents.

    Args:
        digests: (rows, 32)
    """
    return np.ascontiguousarray(digests[:, :KEY_BYTES])


def variant_key(content_sha256: str, augmentation: str, variant: int) -> bytes:
    """Key of one augmented copy.

    Args:
        content_sha256: Of the original's content, hex.
        augmentation: ``POLICY:SEED``.
        variant: 1 … K; 0 is the original, as in `content_keys`.
    """
    if not variant:
        return bytes.fromhex(content_sha256)[:KEY_BYTES]
    name = f"{content_sha256}\0{augmentation}\0{variant}".encode()
    return hashlib.sha256(name).digest()[:KEY_BYTES]


def as_keys(rows: Iterable[bytes]) -> Keys:
    """Stacks keys, (rows, 16)."""
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, KEY_BYTES)
