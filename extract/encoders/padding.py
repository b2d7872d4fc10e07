"""Padding of text batches to few shapes.

For each new shape of a batch a GPU may load kernels, choose algorithms and reserve memory. So the
length of a batch of texts and its number of rows are rounded up there.
"""

from __future__ import annotations

TOKEN_STEP = 16
"""Lengths of batches are multiples of it; attention kernels prefer multiples of 8 or 16."""
_SIZES_AN_OCTAVE = 4
"""Numbers of rows between a power of two and the next, so that at most a quarter is added."""


def padded_length(length: int) -> int:
    """Length that texts are padded to, unless the model's limit is lower."""
    return -(-length // TOKEN_STEP) * TOKEN_STEP


def padded_rows(rows: int) -> int:
    """Number of rows that a batch is padded to: 1 to 8, then 10, 12, 14, 16, 20, …"""
    step = max(1, (1 << (rows - 1).bit_length()) // (2 * _SIZES_AN_OCTAVE))
    return -(-rows // step) * step
