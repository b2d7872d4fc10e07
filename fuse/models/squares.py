"""Squared distances between rows, kept for the next model that compares the same ones.

Kernel models of different weights, bandwidths and penalties on the same rows need the same
distances, which are nearly all of their time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from .linear import linear

Vectors = Mapping[str, Tensor]
MOST_BYTES = 1 << 28
"""Of distances that a process keeps: a trial of the default study has 223 MB; all choices of its
vectors would have 475 MB."""


class KeptSquares:
    """Distances by the content of what they were computed from; those not used for longest go.

    Args:
        most_bytes: Of all that are kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: dict[bytes, Tensor] = {}

    def of(self, read: Iterable[Tensor], compute: Callable[[], Tensor]) -> Tensor:
        """What was computed of the same tensors, which are on the CPU."""
        digest = hashlib.sha256()
        for tensor in read:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().data)
        found = self._kept.pop(digest.digest(), None)
        if found is None:
            found = compute()
            self._bytes += found.nbytes
        self._kept[digest.digest()] = found  # now the last one
        while self._bytes > self._most:
            self._bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return found


_KEPT: ContextVar[KeptSquares | None] = ContextVar("kept", default=None)


@contextmanager
def squares_kept() -> Iterator[None]:
    """Within, distances between rows on the CPU are kept."""
    token = _KEPT.set(KeptSquares(MOST_BYTES))
    try:
        yield
    finally:
        _KEPT.reset(token)


def squares(
    block: Callable[[Vectors], Tensor], x: Vectors, y: Vectors, read: Iterable[Tensor]
) -> Tensor:
    """|x_i − y_j|², ``(rows of x, rows of y)``.

    Args:
        block: Gives what is compared of x and of y, ``(rows, features)``.
        x, y: Vectors by name.
        read: All that is computed from.
    """

    def compute() -> Tensor:
        of_x = block(x)
        of_y = of_x if y is x else block(y)
        return of_x.square().sum(1, keepdim=True) - 2 * linear(of_x, of_y) + of_y.square().sum(1)

    kept = _KEPT.get()
    return compute() if kept is None else kept.of(read, compute)
