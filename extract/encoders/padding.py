"""Batches of few shapes.

A GPU loads kernels, chooses algorithms and reserves memory for each shape of a batch anew. Texts
have any length and their batches any number of rows, so both are rounded up there.
"""

from __future__ import annotations

TOKEN_STEP = 16
"""Lengths of batches are multiples of it. Kernels of attention want multiples of 8 or 16."""
_SIZES_AN_OCTAVE = 4
"""Numbers of rows between a power of two and the next: at most a quarter of the rows is added."""


def padded_length(length: int) -> int:
    """Tokens that a text is padded to, before the limit of the model."""
    return -(-length // TOKEN_STEP) * TOKEN_STEP


def padded_rows(rows: int) -> int:
    """Rows that a batch is padded to: 1 to 8, then 10, 12, 14, 16, 20, …"""
    step = max(1, (1 << (rows - 1).bit_length()) // (2 * _SIZES_AN_OCTAVE))
    return -(-rows // step) * step
