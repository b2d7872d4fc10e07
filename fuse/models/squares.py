"""Squared distances between rows, cached for further models that compare the same rows.

Kernel models on the same rows need the same distances whatever their weights, bandwidths and
penalties, and these take nearly all of their time.
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
"""Size of the cache of a process: a trial of the default study has 223 MB; all choices of its
vectors would have 475 MB."""
_MATRICES = 12
"""Matrices of a trial: three folds with their training and held-out rows, two or three groups of
vectors. A cache that holds fewer has forgotten the first before a trial reads it again."""


class DistanceCache:
    """A least-recently-used cache of distances, by the content of the tensors they follow from.

    Matrices that are too large for a trial's to fit are not cached. The others make room for them,
    so that a process needs memory for either.

    Args:
        most_bytes: Most bytes of all cached distances.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._cache: dict[bytes, Tensor] = {}

    def get(self, read: Iterable[Tensor], nbytes: int, compute: Callable[[], Tensor]) -> Tensor:
        """The cached result for tensors on the CPU, or that of `compute`, which has `nbytes`."""
        if nbytes * _MATRICES > self._most:
            self._cache.clear()
            self._bytes = 0
            return compute()
        digest = hashlib.sha256()
        for tensor in read:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.contiguous().numpy().data)
        distances = self._cache.pop(digest.digest(), None)
        if distances is None:
            distances = compute()
            self._bytes += distances.nbytes
        self._cache[digest.digest()] = distances  # now the most recent one
        while self._bytes > self._most:
            self._bytes -= self._cache.pop(next(iter(self._cache))).nbytes
        return distances


_CACHE: ContextVar[DistanceCache | None] = ContextVar("cache", default=None)


@contextmanager
def cache_distances() -> Iterator[None]:
    """Caches distances between rows on the CPU within the context."""
    token = _CACHE.set(DistanceCache(MOST_BYTES))
    try:
        yield
    finally:
        _CACHE.reset(token)


def squared_distances(
    block: Callable[[Vectors], Tensor], x: Vectors, y: Vectors, read: Iterable[Tensor]
) -> Tensor:
    """|x_i − y_j|², ``(rows of x, rows of y)``.

    Args:
        block: Computes the compared features of x and of y, ``(rows, features)``.
        x, y: Vectors by name.
        read: All tensors that the distances follow from.
    """

    def compute() -> Tensor:
        a = block(x)
        b = a if y is x else block(y)
        product = linear(a, b)  # the largest matrix by far: there is one of it
        return product.mul_(-2).add_(a.square().sum(1, keepdim=True)).add_(b.square().sum(1))

    cache = _CACHE.get()
    if cache is None:
        return compute()
    rows, columns = (len(next(iter(vectors.values()))) for vectors in (x, y))
    return cache.get(read, 4 * rows * columns, compute)
