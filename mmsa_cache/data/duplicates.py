"""Groups of duplicate posts: by equal keys, and of pictures by perceptual hashes."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

NEAR = 6
"""Largest distance (of 64 bits) between the hashes of pictures that look alike. On the 4,511
pictures of MVSA-Single, 137 pairs of different bytes are at most 6 apart, all of them the same
picture; the first pairs that only share their layout come at 10."""
FLAT = 4.0
"""Deviation of grey values (of 255) below which a picture is too flat for a hash."""
_BITS = 64
_ROWS = 1024
"""Rows of a bucket that are compared with the whole bucket at a time."""

Hashes = NDArray[np.uint64]


def group_by_key(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indices of equal keys, at least two a group, by first appearance; None is no key."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(index)
    return [indices for indices in groups.values() if len(indices) > 1]


def connected_groups(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Connected components of a graph.

    Args:
        count: Number of nodes.
        pairs: Edges as indices of two nodes, (pairs, 2).

    Returns:
        Component number of each node, (count,), numbered by first appearance.
    """
    if not count:
        return np.empty(0, np.int64)
    edges = coo_array((np.ones(len(pairs), np.bool_), pairs.T), (count, count))
    group = connected_components(edges, directed=False)[1]
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int64)


def perceptual_hash(pixels: NDArray[np.uint8]) -> int | None:
    """Perceptual hash of a picture (imagehash's DCT hash, 64 bits); None if it is flat.

    Args:
        pixels: (height, width, 3) RGB.
    """
    grey = Image.fromarray(pixels).convert("L")
    if np.asarray(grey.resize((16, 16), Image.Resampling.BOX)).std() < FLAT:
        return None
    bits = np.packbits(imagehash.phash(grey).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


def near_groups(values: Sequence[int | None], distance: int = NEAR) -> list[list[int]]:
    """Groups of pictures that look alike: each is near another one of its group.

    Two hashes that differ in at most d bits agree on at least one of d + 1 bands of bits, so only
    those that share a band are compared.

    Args:
        values: Hashes of `perceptual_hash`; None is in no group.
        distance: Most bits that may differ.

    Returns:
        Indices, at least two a group, by first appearance.
    """
    hashes, inverse = np.unique(
        np.array([value for value in values if value is not None], np.uint64), return_inverse=True
    )
    group = connected_groups(len(hashes), _near_pairs(hashes, distance))
    number = iter(group[inverse].tolist())
    return group_by_key(None if value is None else next(number) for value in values)


def _near_pairs(hashes: Hashes, distance: int) -> NDArray[np.int64]:
    """Index pairs of different hashes at most ``distance`` bits apart, (pairs, 2)."""
    edges = np.linspace(0, _BITS, distance + 2).astype(int).tolist()
    near: list[NDArray[Any]] = [np.empty((0, 2), np.int64)]
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, cuts):
            for first in range(0, len(bucket) if len(bucket) > 1 else 0, _ROWS):
                rows = bucket[first : first + _ROWS]
                apart = np.bitwise_count(hashes[rows][:, None] ^ hashes[bucket][None])
                left, right = np.nonzero(apart <= distance)
                pairs = np.stack([rows[left], bucket[right]], 1)
                near.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(near)
