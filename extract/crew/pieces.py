"""Pieces: what a worker is handed at a time, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extract.plan import Row

SECONDS = 20.0
"""What a piece should take: what the loss of a worker costs at most, beside the piece that it has
in hand already."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that one worker adds; it needs no table of the samples."""

    number: int
    """Told once: a piece that is handed out again has another number."""
    job: int
    """Number of the job, from 0: which encoder, and where its shards go."""
    rows: tuple[Row, ...]
    windows: tuple[int, ...]
    """Rows of each window; batches never cross them, so a row's bytes are those of a plain run."""


def windows_to_take(left: Sequence[int], rate: float | None, workers: int) -> int:
    """Windows of the next piece: one at first, then as many as take `SECONDS`, fewer at the end.

    Args:
        left: Rows of the windows that are left, in order; at least one.
        rate: Rows a second and worker; None until the first piece is done.
        workers: Those that share what is left.
    """
    if rate is None:
        return 1
    fair = max(1, len(left) // (2 * max(1, workers)))
    rows = 0
    for count, more in enumerate(left[:fair], start=1):
        rows += more
        if rows >= rate * SECONDS:
            return count
    return fair
