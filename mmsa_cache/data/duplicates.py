"""Which posts repeat each other: by equal keys, and pictures by how they look."""

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
"""Bits of 64 in which the hashes of pictures that look alike may differ. On the 4,511 pictures of
MVSA-Single, 137 pairs of different bytes are at most 6 apart, all of them the same picture; the
first pairs that only share their layout come at 10."""
FLAT = 4.0
"""Deviation of grey values (of 255) below which a picture shows nothing that a hash could tell."""
_BITS = 64
_ROWS = 1024
"""Rows that are compared with a whole bucket at a time."""

Hashes = NDArray[np.uint64]


def group_by_key(keys: Iterable[Hashable]) -> list[list[int]]:
    """Places that share a key, at least two each, by first appearance; None is no key."""
    found: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        if key is not None:
            found.setdefault(key, []).append(place)
    return [places for places in found.values() if len(places) > 1]


def connected_groups(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers the groups of things that pairs connect.

    Args:
        count: Number of things.
        pairs: Places of two things that belong together, (pairs, 2).

    Returns:
        Group number a thing, (count,), numbered by first appearance.
    """
    if not count:
        return np.empty(0, np.int64)
    edges = coo_array((np.ones(len(pairs), np.bool_), pairs.T), (count, count))
    group = connected_components(edges, directed=False)[1]
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int64)


def perceptual_hash(pixels: NDArray[np.uint8]) -> int | None:
    """Perceptual hash of a picture (imagehash's DCT hash, 64 bits); None where it is flat.

    Args:
        pixels: (height, width, 3) RGB.
    """
    grey = Image.fromarray(pixels).convert("L")
    if np.asarray(grey.resize((16, 16), Image.Resampling.BOX)).std() < FLAT:
        return None
    bits = np.packbits(imagehash.phash(grey).hash.ravel())
    return int.from_bytes(bits.tobytes(), "big")


def near_groups(looks: Sequence[int | None], distance: int = NEAR) -> list[list[int]]:
    """Groups of pictures that look alike: each member is near some other one of its group.

    Two hashes that differ in at most d bits agree on at least one of d + 1 bands of bits, so only
    those that share a band are compared.

    Args:
        looks: Hashes of `perceptual_hash`; None belongs nowhere.
        distance: Bits that may differ.

    Returns:
        Places, at least two each, by first appearance.
    """
    hashes, inverse = np.unique(
        np.array([look for look in looks if look is not None], np.uint64), return_inverse=True
    )
    group = connected_groups(len(hashes), _near_pairs(hashes, distance))
    number = iter(group[inverse].tolist())
    return group_by_key(None if look is None else next(number) for look in looks)


def _near_pairs(hashes: Hashes, distance: int) -> NDArray[np.int64]:
    """Pairs of places of different hashes at most ``distance`` bits apart, (pairs, 2)."""
    edges = np.linspace(0, _BITS, distance + 2).astype(int).tolist()
    found: list[NDArray[Any]] = [np.empty((0, 2), np.int64)]
    for low, high in itertools.pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for bucket in np.split(order, cuts):
            for first in range(0, len(bucket) if len(bucket) > 1 else 0, _ROWS):
                part = bucket[first : first + _ROWS]
                apart = np.bitwise_count(hashes[part][:, None] ^ hashes[bucket][None])
                left, right = np.nonzero(apart <= distance)
                pairs = np.stack([part[left], bucket[right]], 1)
                found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return np.concatenate(found)
