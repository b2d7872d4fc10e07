"""Chosen rows of several shards as one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.store.schema import Shard

ShardRows = tuple[Shard, NDArray[np.int64], NDArray[np.int64]]
"""A shard, the rows of the result that come from it, and their row numbers in the shard."""


def split_by_shard(
    shards: Sequence[Shard], rows: NDArray[np.int64]
) -> tuple[list[ShardRows], NDArray[np.int64]]:
    """Splits rows by the shards that hold them.

    Args:
        shards: All shards.
        rows: Row numbers, counted over all shards.

    Returns:
        The parts, and the number of each row's part, (rows,).
    """
    starts = np.cumsum([0, *map(len, shards)])
    shard_of = np.searchsorted(starts, rows, side="right") - 1
    used, part_of = np.unique(shard_of, return_inverse=True)
    part_of = part_of.reshape(-1)
    parts: list[ShardRows] = []
    for number, shard in enumerate(used.tolist()):
        chosen = np.flatnonzero(part_of == number)
        parts.append((shards[shard], chosen, rows[chosen] - starts[shard]))
    return parts, part_of


def gather_rows(values: Sequence[NDArray[Any]], parts: Sequence[ShardRows]) -> Tensor:
    """Copies the rows of all parts into one tensor.

    NumPy copies in one thread, which other processes on the cores do not slow down.

    Args:
        values: One array for each part, with a value for each row of its shard.
        parts: From `split_by_shard`.
    """
    count = sum(len(to) for _, to, _ in parts)
    result = np.empty((count, *values[0].shape[1:]), values[0].dtype)
    for own, (_, to, at) in zip(values, parts, strict=True):
        result[to] = own[at]
    return torch.from_numpy(result)
