"""Padding of texts in a stack, whose steps have one of a few shapes.

If all texts were padded to the longest of a bank, most positions of short posts would be padding.
So the rows of a batch are sorted by the length of their texts and split into parts, each padded to
a length of its own. The lengths of the parts are the step's *shape*. A step gets the smallest of a
few shapes that it fits into.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PART_ROWS = 64
"""Fewest rows of a part, of all members together: below, launches cost more than padding."""
_PARTS = (4, 2, 1, 1), (2, 1, 1), (1, 1)
_MULTIPLE = 8
"""Lengths are multiples of this, or the longest."""
_SHARES = (0.5, 0.75, 0.9, 1.0)
"""Shares of an epoch's steps that fit into each shape."""

Shape = tuple[int, ...]


def part_sizes(rows: int, members: int) -> list[int]:
    """Number of rows of each part of a batch: parts of longer texts have fewer rows."""
    for shares in _PARTS:
        whole = sum(shares)
        if rows % whole == 0 and rows // whole * members >= PART_ROWS:
            return [share * rows // whole for share in shares]
    return [rows]


class Buckets:
    """The shapes of a stack's steps.

    Args:
        lengths: Positions of each text row of a bank, (rows,) on the CPU.
        epoch: Items of the steps of an epoch, (steps, members, batch, 3), that shapes are chosen
            for.
    """

    def __init__(self, lengths: Tensor, epoch: Tensor) -> None:
        self._lengths = lengths
        self.sizes = part_sizes(epoch.shape[2], epoch.shape[1])
        """Number of rows of each part."""
        self._longest = int(lengths.max())
        _, needed = self._sort_rows(epoch)
        shapes = {(self._longest,) * len(self.sizes)}
        for share in _SHARES:
            quantiles = np.quantile(needed.numpy(), share, axis=0, method="higher")
            shapes.add(tuple(map(self._round, quantiles.tolist())))
        self.shapes: list[Shape] = sorted(shapes, key=sum)
        """From the shortest to that which every step fits into."""

    def sort(self, rows: Tensor) -> tuple[Tensor, list[Shape]]:
        """Sorts the rows of batches by the lengths of their texts.

        Args:
            rows: Items, (steps, members, batch, 3) on the CPU.

        Returns:
            The sorted items, and the shape of each step.
        """
        order, needed = self._sort_rows(rows)
        rows = rows.gather(2, order.unsqueeze(-1).expand_as(rows))
        return rows, [self._find_shape(lengths) for lengths in needed.tolist()]

    def _sort_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The order of each batch's rows, and the longest text of each part, (steps, parts)."""
        lengths, order = self._lengths[rows[..., 1].clamp_min(0)].sort(dim=-1, stable=True)
        longest = [part.amax((1, 2)) for part in lengths.split(self.sizes, -1)]
        return order, torch.stack(longest, 1)

    def _round(self, length: int) -> int:
        return min(-(-length // _MULTIPLE) * _MULTIPLE, self._longest)

    def _find_shape(self, needed: list[int]) -> Shape:
        return next(
            shape
            for shape in self.shapes
            if all(length >= least for length, least in zip(shape, needed, strict=True))
        )
