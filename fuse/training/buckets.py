"""How far the texts of a step are padded where all steps have one of a few shapes.

Padded to the longest text of a bank, most positions of short posts are padding. So the rows of a
batch are sorted by the length of their texts and come in parts, each padded to a length of its own.
The lengths of all parts are a step's *shape*; few shapes are used, each of which holds the steps
that fit it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PART_ROWS = 64
"""Of all members that a part has at least; for fewer, launches should cost more than padding."""
_PARTS = (4, 2, 1, 1), (2, 1, 1), (1, 1)
_MULTIPLE = 8
"""Lengths are multiples of this, or the longest."""
_SHARES = (0.5, 0.75, 0.9, 1.0)
"""Of the steps of an epoch whose parts are not longer than those of a shape."""

Shape = tuple[int, ...]


def part_sizes(rows: int, members: int) -> list[int]:
    """Rows of the parts of a batch: the longer its texts, the smaller a part."""
    for shares in _PARTS:
        whole = sum(shares)
        if rows % whole == 0 and rows // whole * members >= PART_ROWS:
            return [share * rows // whole for share in shares]
    return [rows]


class Buckets:
    """The shapes of a stack's steps.

    Args:
        lengths: Positions of each text row of a bank, (rows,) on the CPU.
        epoch: Items of the steps of an epoch, (steps, members, batch, 3): shapes suit them.
    """

    def __init__(self, lengths: Tensor, epoch: Tensor) -> None:
        self._lengths = lengths
        self.sizes = part_sizes(epoch.shape[2], epoch.shape[1])
        """Rows of each part."""
        self._longest = int(lengths.max())
        _, needed = self._needed(epoch)
        shapes = {self._longest_shape}
        for share in _SHARES:
            lengths_of = np.quantile(needed.numpy(), share, axis=0, method="higher")
            shapes.add(tuple(map(self._rounded, lengths_of.tolist())))
        self.shapes: list[Shape] = sorted(shapes, key=sum)
        """From the shortest to that which holds every step."""

    @property
    def _longest_shape(self) -> Shape:
        return (self._longest,) * len(self.sizes)

    def sort(self, rows: Tensor) -> tuple[Tensor, list[Shape]]:
        """Sorts the rows of batches by the lengths of their texts.

        Args:
            rows: Items, (steps, members, batch, 3) on the CPU.

        Returns:
            Such items, and the shape of each step.
        """
        order, needed = self._needed(rows)
        rows = rows.gather(2, order.unsqueeze(-1).expand_as(rows))
        return rows, [self._shape(of) for of in needed.tolist()]

    def _needed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The order of the rows of each batch, and each step's longest texts, (steps, parts)."""
        own, order = self._lengths[rows[..., 1].clamp_min(0)].sort(dim=-1, stable=True)
        longest = [part.amax((1, 2)) for part in own.split(self.sizes, -1)]
        return order, torch.stack(longest, 1)

    def _rounded(self, length: int) -> int:
        return min(-(-length // _MULTIPLE) * _MULTIPLE, self._longest)

    def _shape(self, needed: list[int]) -> Shape:
        return next(
            shape
            for shape in self.shapes
            if all(own >= of for own, of in zip(shape, needed, strict=True))
        )
