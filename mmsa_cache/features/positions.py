"""Sequences of rows: the tokens of texts, the patches of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .gather import ShardRows, gather_rows


class Positions:
    """The positions of rows, mapped shard by shard on the CPU or one tensor on a GPU.

    Args:
        parts: The shards that hold the rows.
        block: Number of each row's part, (rows,).
    """

    def __init__(self, parts: Sequence[ShardRows], block: NDArray[np.int64]) -> None:
        self._blocks = [torch.from_numpy(shard.tokens) for shard, _, _ in parts]
        self._block = torch.from_numpy(block)
        self._start = gather_rows([shard.offsets[:-1] for shard, _, _ in parts], parts)
        self.lengths = gather_rows([np.diff(shard.offsets) for shard, _, _ in parts], parts)
        """(rows,) int64"""
        self.longest = int(self.lengths.max())
        # Blocks of equally long rows are read row by row; others position by position.
        self._equally_long = int(self.lengths.min()) == self.longest and all(
            len(block) == self.longest * len(shard)
            for block, (shard, _, _) in zip(self._blocks, parts, strict=True)
        )

    def to(self, device: torch.device) -> None:
        """Moves them to where `lengths` is; on an accelerator they become one tensor."""
        if self._start.device == device:
            return
        offsets = torch.tensor([0, *(len(b) for b in self._blocks)]).cumsum(0)
        start = (self._start + offsets[self._block]).to(device)
        first = self._blocks[0]
        whole = torch.empty((int(offsets[-1]), *first.shape[1:]), dtype=first.dtype, device=device)
        for place, block in zip(offsets[:-1].tolist(), self._blocks, strict=True):
            whole[place : place + len(block)] = block
        self._blocks, self._start = [whole], start
        self._block = torch.zeros_like(self._block).to(device)

    def of(
        self, rows: Tensor, length: int | None, *, zeros: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """See `ModalityFeatures.sequences`; rows (batch,) are on the device."""
        lengths = self.lengths[rows]
        if length is None:
            length = int(lengths.max()) if len(rows) else 0
        if self._equally_long and length == self.longest:
            return self._whole(rows), None
        steps = torch.arange(length, device=rows.device)
        mask = steps < lengths[:, None]
        position = self._start[rows, None] + steps
        first = self._blocks[0]
        if len(self._blocks) == 1:  # places after a row's end are read and then cleared
            features = first[position.clamp_max(len(first) - 1)]
            return features.masked_fill_(~mask[..., None], 0.0) if zeros else features, mask
        features = first.new_zeros((len(rows), length, first.shape[-1]))
        blocks = self._block[rows]
        for number in blocks.unique().tolist():
            chosen = (blocks == number).nonzero().squeeze(1)
            row_of, step_of = mask[chosen].nonzero(as_tuple=True)
            at = chosen[row_of]
            features[at, step_of] = self._blocks[number][position[at, step_of]]
        return features, mask

    def _whole(self, rows: Tensor) -> Tensor:
        """Sequences of equally long rows, copied row by row, (batch, tokens, dim)."""
        places = self._start[rows] // self.longest
        blocks = [block.unflatten(0, (-1, self.longest)) for block in self._blocks]
        if len(blocks) == 1:
            return blocks[0].index_select(0, places)
        features = blocks[0].new_empty((len(rows), *blocks[0].shape[1:]))
        owners = self._block[rows]
        for number in owners.unique().tolist():
            chosen = (owners == number).nonzero().squeeze(1)
            features.index_copy_(0, chosen, blocks[number].index_select(0, places[chosen]))
        return features
