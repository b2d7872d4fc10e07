"""Cached features as tensors, ready by index.

No DataLoader, no HDF5 reads, no Python per sample: pooled vectors are one tensor, tokens stay
memory-mapped shard by shard on the CPU (processes on one machine share the pages) or lie in one
tensor on the GPU, and a batch is a handful of gathers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import DamagedCacheError, SettingsError
from .schema import SHARED, Shard
from .store import open_shards


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of both modalities. Masks are True at real positions."""

    text: Tensor
    """(batch, text_tokens, text_dim) float16"""
    text_mask: Tensor
    """(batch, text_tokens) bool"""
    image: Tensor
    """(batch, patches, image_dim) float16"""
    image_mask: Tensor
    """(batch, patches) bool"""
    text_vector: Tensor
    """(batch, text_vector_dim) float16, the chosen pool"""
    image_vector: Tensor
    """(batch, image_vector_dim) float16, the chosen pool"""
    labels: Tensor
    """(batch,) int64, −1 where unknown"""


@dataclass(frozen=True, slots=True)
class Dims:
    """Features of the four inputs that a model may read."""

    text: int
    image: int
    text_vector: int
    image_vector: int


class ModalityFeatures:
    """All cached rows of one modality.

    Args:
        shards: The rows, in order.
        name: What to call this in errors.
    """

    def __init__(self, shards: Iterable[Shard], name: str) -> None:
        blocks, block, start, length, pooled, shared = [], [], [], [], [], []
        self.guids: list[str] = []
        self.pools: tuple[str, ...] = ()
        variants: list[int] = []
        for number, shard in enumerate(shards):
            if number and shard.pools != self.pools:
                raise DamagedCacheError(f"{name}: shard {number} has other pools than the first.")
            self.pools = shard.pools
            self.guids += shard.guids
            variants += shard.variant.tolist()
            blocks.append(torch.from_numpy(shard.tokens))
            block.append(torch.full((len(shard.guids),), number))
            start.append(torch.from_numpy(shard.offsets[:-1].copy()))
            length.append(torch.from_numpy(np.diff(shard.offsets)))
            pooled.append(torch.from_numpy(shard.pooled))
            if shard.shared is not None:
                shared.append(torch.from_numpy(shard.shared))
        if not blocks:
            raise DamagedCacheError(f"{name}: the cache holds no rows.")
        self.name = name
        self.variants = variants
        self.pooled = torch.cat(pooled)
        """(rows, pools, dim) float16"""
        self.shared = torch.cat(shared) if len(shared) == len(blocks) else None
        """(rows, shared_dim) float16, of joint models"""
        self._blocks = blocks
        self._block = torch.cat(block)
        self._start = torch.cat(start)
        self._length = torch.cat(length)
        self._grids: dict[int, Tensor] = {}

    @classmethod
    def open(cls, directory: Path) -> ModalityFeatures:
        """Opens a finished cache after re-hashing it."""
        return cls(open_shards(directory), str(directory))

    @property
    def dim(self) -> int:
        return self.pooled.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.pooled.device

    def to(self, device: torch.device) -> None:
        """Moves everything to a device; on an accelerator the tokens become one tensor."""
        if device.type == "cpu":
            return
        offsets = torch.tensor([0, *(len(b) for b in self._blocks)]).cumsum(0)
        self._start = (self._start + offsets[self._block]).to(device)
        self._blocks = [torch.cat([b.to(device) for b in self._blocks])]
        self._block = torch.zeros_like(self._block)
        self._length = self._length.to(device)
        self.pooled = self.pooled.to(device)
        self.shared = None if self.shared is None else self.shared.to(device)
        self._grids = {side: grid.to(device) for side, grid in self._grids.items()}

    def _pool(self, name: str) -> Tensor:
        """Every row's vector of one pool, (rows, dim).

        Raises:
            SettingsError: The encoder has no such pool.
        """
        if name in self.pools:
            return self.pooled[:, self.pools.index(name)]
        if name == SHARED and self.shared is not None:
            return self.shared
        names = [*self.pools, *([SHARED] if self.shared is not None else [])]
        raise SettingsError(f"{self.name} has no pool {name!r}.", f"Valid: {', '.join(names)}.")

    def vector_dim(self, pool: str) -> int:
        """Features of a pooled vector."""
        return self._pool(pool).shape[-1]

    def vectors(self, rows: Tensor, pool: str) -> Tensor:
        """Pooled vectors.

        Args:
            rows: Row numbers, (batch,).
            pool: Name of the pool, ``shared`` for the embedding of a joint model.

        Returns:
            Features (batch, dim) float16.

        Raises:
            SettingsError: The encoder has no such pool.
        """
        return self._pool(pool)[rows.to(self.device)]

    def grid(self, rows: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Patches averaged to a coarser square grid; made for all rows at the first call.

        Args:
            rows: Row numbers, (batch,).
            side: Cells along each side.

        Returns:
            Features (batch, side·side, dim) float16 and mask, all True.

        Raises:
            SettingsError: The positions are no square, or one with fewer cells.
        """
        features = self.averaged(side)[rows.to(self.device)]
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=self.device)

    def averaged(self, side: int) -> Tensor:
        """The grids of all rows, (rows, side·side, dim) float16; see `grid`."""
        if side not in self._grids:
            counts = self._length.unique().tolist()
            whole = math.isqrt(counts[0])
            if len(counts) > 1 or whole * whole != counts[0] or not 1 <= side <= whole:
                raise SettingsError(
                    f"{self.name} has {counts} positions a row: no {side}×{side} grid comes of it.",
                    "Set grid to 0 (all patches), or to at most the side of the model's own grid.",
                )
            parts = []
            for part in torch.arange(len(self._length)).split(256):
                patches, _ = self.sequences(part)
                square = patches.float().transpose(1, 2).unflatten(2, (whole, whole))
                cells = torch.nn.functional.adaptive_avg_pool2d(square, side)
                parts.append(cells.flatten(2).transpose(1, 2).half())
            self._grids[side] = torch.cat(parts)
        return self._grids[side]

    def use_averaged(self, side: int, cells: Tensor) -> None:
        """Takes grids that another process made of the same rows, so that they are not made again.

        Args:
            side: Cells along each side.
            cells: What `averaged` gave there.

        Raises:
            DamagedCacheError: They are not of these rows.
        """
        if cells.shape != (len(self._length), side * side, self.dim):
            raise DamagedCacheError(
                f"{self.name}: grids of shape {tuple(cells.shape)} are not its."
            )
        self._grids[side] = cells.to(self.device)

    def sequences(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Token sequences, padded with zeros to the longest of the batch.

        Args:
            rows: Row numbers, (batch,), on the CPU.

        Returns:
            Features (batch, tokens, dim) float16 and mask (batch, tokens), True = real.

        Raises:
            SettingsError: The cache holds pooled vectors only.
        """
        if not int(self._length.sum()):
            raise SettingsError(
                f"{self.name} was extracted with tokens = 'none': it holds pooled vectors only.",
                "Use level = 'pooled', or extract with --tokens keep.",
            )
        where = rows.to(self._length.device)
        lengths = self._length[where]
        longest = int(lengths.max()) if len(rows) else 0
        steps = torch.arange(longest, device=lengths.device)
        mask = steps < lengths[:, None]
        features = torch.zeros(
            (len(rows), longest, self.dim), dtype=self.pooled.dtype, device=self.device
        )
        blocks = self._block[rows]
        for number in blocks.unique().tolist():
            chosen = (blocks == number).nonzero().squeeze(1).to(self.device)
            inside = mask[chosen]
            position = (self._start[where[chosen], None] + steps)[inside]
            row_of, step_of = inside.nonzero(as_tuple=True)
            features[chosen[row_of], step_of] = self._blocks[number][position]
        return features, mask


class FeatureBank:
    """Both modalities of the same samples, with labels.

    Args:
        text: Text rows.
        image: Image rows.
        guids: Samples, in the order that indices count.
        labels: Class codes, −1 where unknown, (samples,).
    """

    def __init__(
        self,
        text: ModalityFeatures,
        image: ModalityFeatures,
        guids: Sequence[str],
        labels: Sequence[int],
    ) -> None:
        self.text, self.image = text, image
        self.guids = list(guids)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self._text_rows = _row_table(text, self.guids)
        self._image_rows = _row_table(image, self.guids)

    def __len__(self) -> int:
        return len(self.guids)

    def to(self, device: torch.device) -> FeatureBank:
        """Moves the features to a device where they fit; on the CPU they stay mapped."""
        self.text.to(device)
        self.image.to(device)
        self.labels = self.labels.to(device)
        return self

    def dims(self, *, level: str, text_pool: str, image_pool: str) -> Dims:
        """Features of what `batch` gives with the same arguments.

        Raises:
            SettingsError: Unknown pool.
        """
        text, image = self.text.vector_dim(text_pool), self.image.vector_dim(image_pool)
        if level == "pooled":
            return Dims(text, image, text, image)
        return Dims(self.text.dim, self.image.dim, text, image)

    def items(self, samples: Sequence[int] | np.ndarray, *, variants: bool) -> Tensor:
        """Lists what an epoch goes through.

        Args:
            samples: Sample indices.
            variants: Also the augmented copies, text variant i with image variant i.

        Returns:
            (items, 3) int64: sample, row of the text, row of the image; originals first.
        """
        chosen = torch.as_tensor(np.asarray(samples), dtype=torch.int64)
        width = min(self._text_rows.shape[1], self._image_rows.shape[1]) if variants else 1
        parts = []
        for variant in range(width):
            rows = torch.stack(
                [chosen, self._text_rows[chosen, variant], self._image_rows[chosen, variant]], 1
            )
            parts.append(rows[(rows >= 0).all(1)])
        return torch.cat(parts)

    def paired_freely(self, items: Tensor, generator: torch.Generator) -> Tensor:
        """Gives every copy a text and an image variant of its sample, drawn apart from each other.

        Text and image variants are cached apart, so any pair of them is a post; K of each make
        (K + 1)² pairs instead of K + 1. Originals stay as they are.

        Args:
            items: Of `items`, (items, 3).
            generator: Draws uniformly from variants 0 … K.

        Returns:
            Items of the same samples, (items, 3).
        """
        copies = items[:, 1] != self._text_rows[items[:, 0], 0]
        chosen = items.clone()
        for column, table in ((1, self._text_rows), (2, self._image_rows)):
            rows = table[items[:, 0]]
            draw = torch.rand(len(items), generator=generator) * (rows >= 0).sum(1)
            drawn = rows.gather(1, draw.long()[:, None]).squeeze(1)
            chosen[:, column] = torch.where(copies, drawn, items[:, column])
        return chosen

    def batch(
        self, items: Tensor, *, level: str, text_pool: str, image_pool: str, grid: int = 0
    ) -> Batch:
        """Gathers one batch.

        Args:
            items: Rows of ``items()``, (batch, 3).
            level: ``pooled`` (sequences of one vector) or ``tokens``.
            text_pool: Which pooled vector of the text.
            image_pool: Which pooled vector of the image.
            grid: Cells along each side that patches are averaged to; 0 keeps them all.

        Raises:
            SettingsError: Unknown level or pool.
        """
        text_vector = self.text.vectors(items[:, 1], text_pool)
        image_vector = self.image.vectors(items[:, 2], image_pool)
        if level == "pooled":
            text, image = text_vector.unsqueeze(1), image_vector.unsqueeze(1)
            text_mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
            image_mask = torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
        elif level == "tokens":
            text, text_mask = self.text.sequences(items[:, 1])
            image, image_mask = (
                self.image.grid(items[:, 2], grid) if grid else self.image.sequences(items[:, 2])
            )
        else:
            raise SettingsError(f"Unknown level {level!r}.", "Valid: pooled, tokens.")
        labels = self.labels[items[:, 0].to(self.labels.device)]
        return Batch(text, text_mask, image, image_mask, text_vector, image_vector, labels)


def _row_table(features: ModalityFeatures, guids: list[str]) -> Tensor:
    """(samples, variants) row numbers, −1 where a sample has no such variant."""
    place = {guid: i for i, guid in enumerate(guids)}
    table = torch.full((len(guids), max(features.variants) + 1), -1)
    for row, (guid, variant) in enumerate(zip(features.guids, features.variants, strict=True)):
        if guid in place:
            table[place[guid], variant] = row
    missing = [guids[i] for i in (table[:, 0] < 0).nonzero().squeeze(1).tolist()]
    if missing:
        raise DamagedCacheError(
            f"{features.name} lacks {len(missing)} samples, e.g. {missing[:3]}."
        )
    return table
