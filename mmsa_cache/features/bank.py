"""Cached features as tensors, ready by index.

No DataLoader, no HDF5 reads, no Python per sample: pooled vectors are one tensor, tokens stay
memory-mapped shard by shard on the CPU (processes on one machine share the pages) or lie in one
tensor on the GPU, and a batch is a handful of gathers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.errors import DamagedCacheError, SettingsError
from mmsa_cache.store.schema import DEFAULT_ENCODER, FEATURE_DTYPE, SHARED, Shard
from mmsa_cache.store.shard_file import AGAIN
from mmsa_cache.store.store import open_shards


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of both modalities. Masks are True at real positions; None: all are real."""

    text: Tensor
    """(batch, text_tokens, text_dim) float16"""
    text_mask: Tensor | None
    """(batch, text_tokens) bool"""
    image: Tensor
    """(batch, patches, image_dim) float16"""
    image_mask: Tensor | None
    """(batch, patches) bool"""
    vectors: dict[str, Tensor]
    """The chosen pools by ``MODALITY_POOL``, as in ``text_mean``, (batch, dim) float16 each"""
    labels: Tensor
    """(batch,) int64, −1 where unknown"""

    def split(self, rows: int, *, trim: bool = False) -> Iterator[Batch]:
        """Smaller batches of so many rows, without copying.

        Args:
            rows: Of each but the last.
            trim: Cut off the text positions that no row of a part has; reads masks back.
        """
        for first in range(0, len(self.labels), rows):
            part = slice(first, first + rows)
            text = self.text[part]
            mask = None if self.text_mask is None else self.text_mask[part]
            if trim and mask is not None:
                longest = max(1, int(mask.sum(1).max()))
                text, mask = text[:, :longest], mask[:, :longest]
            yield Batch(
                text,
                mask,
                self.image[part],
                None if self.image_mask is None else self.image_mask[part],
                {name: vector[part] for name, vector in self.vectors.items()},
                self.labels[part],
            )


@dataclass(frozen=True, slots=True)
class Dims:
    """Features of the inputs that a model may read."""

    text: int
    image: int
    vectors: dict[str, int]
    """By the names of `Batch.vectors`."""


class ModalityFeatures:
    """All cached rows of one modality.

    Args:
        shards: The rows, in order.
        name: What to call this in errors.
    """

    def __init__(self, shards: Iterable[Shard], name: str) -> None:
        found = list(shards)
        if not found:
            raise DamagedCacheError(f"{name}: the cache holds no rows.")
        self.name = name
        self.pools = found[0].pools
        other = next((i for i, shard in enumerate(found) if shard.pools != self.pools), None)
        if other is not None:
            raise DamagedCacheError(f"{name}: shard {other} has other pools than the first.")
        self.guids = [guid for shard in found for guid in shard.guids]
        self.variants: list[int] = _joined([shard.variant for shard in found]).tolist()
        _check_rows(self.guids, self.variants, name)
        self.pooled = _joined([shard.pooled for shard in found])
        """(rows, pools, dim) float16"""
        shared = [shard.shared for shard in found if shard.shared is not None]
        self.shared = _joined(shared) if len(shared) == len(found) else None
        """(rows, shared_dim) float16, of joint models"""
        self._blocks = [torch.from_numpy(shard.tokens) for shard in found]
        self._block = torch.arange(len(found)).repeat_interleave(
            torch.tensor([len(shard.guids) for shard in found])
        )
        self._start = _joined([shard.offsets[:-1] for shard in found])
        self._length = _joined([np.diff(shard.offsets) for shard in found])
        self._longest = int(self._length.max())
        self._equally_long = int(self._length.min()) == self._longest
        self._grids: dict[int, Tensor] = {}

    @classmethod
    def open(cls, directory: Path) -> ModalityFeatures:
        """Opens a finished cache after re-hashing it."""
        return cls(open_shards(directory), str(directory))

    @classmethod
    def absent(cls, dim: int, vectors: Mapping[str, int], positions: int) -> ModalityFeatures:
        """Features of no sample at all, as long as those that a model expects.

        Args:
            dim: Features of a position.
            vectors: The pooled vectors that the model reads, and their features.
            positions: Positions of a row, at least one.
        """
        pools = {name: size for name, size in vectors.items() if name != SHARED}
        shared = np.zeros((1, vectors[SHARED]), FEATURE_DTYPE) if SHARED in vectors else None
        width = next(iter(pools.values()), dim)
        shard = Shard(
            [""],
            np.zeros(1, np.int32),
            [""],
            np.array([0, positions]),
            np.zeros((positions, width), FEATURE_DTYPE),
            np.zeros((1, len(pools), width), FEATURE_DTYPE),
            tuple(pools),
            shared,
        )
        return cls([shard], "a missing modality")

    @property
    def dim(self) -> int:
        return self.pooled.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.pooled.device

    def to(self, device: torch.device) -> None:
        """Moves everything to a device; on an accelerator the tokens become one tensor."""
        if device.type in ("cpu", self.device.type):
            return
        offsets = torch.tensor([0, *(len(b) for b in self._blocks)]).cumsum(0)
        self._start = (self._start + offsets[self._block]).to(device)
        self._blocks = [torch.cat([b.to(device) for b in self._blocks])]
        self._block = torch.zeros_like(self._block).to(device)
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
        raise SettingsError(
            f"{self.name} has no pool {name!r}.",
            f"Valid: {', '.join(names)}; mean@N come from pool_layers = [N] in mmsa.toml.",
        )

    def vector_dim(self, pool: str) -> int:
        """Features of a pooled vector, or of several joined by ``+``."""
        return sum(self._pool(name).shape[-1] for name in split_pools(pool))

    def vectors(self, rows: Tensor, pool: str) -> Tensor:
        """Pooled vectors.

        Args:
            rows: Row numbers, (batch,).
            pool: Name of the pool, ``shared`` for the embedding of a joint model; several joined
                by ``+`` are concatenated.

        Returns:
            Features (batch, dim) float16.

        Raises:
            SettingsError: The encoder has no such pool.
        """
        rows = rows.to(self.device)
        # Indexing by [rows] took eight times as long on the CPU.
        parts = [self._pool(name).index_select(0, rows) for name in split_pools(pool)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def grid(self, rows: Tensor, side: int) -> tuple[Tensor, None]:
        """Patches averaged to a coarser square grid; made for all rows at the first call.

        Args:
            rows: Row numbers, (batch,).
            side: Cells along each side.

        Returns:
            Features (batch, side·side, dim) float16, and no mask: all are real.

        Raises:
            SettingsError: The positions are no square, or one with fewer cells.
        """
        return self.averaged(side).index_select(0, rows.to(self.device)), None

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

    @property
    def longest(self) -> int:
        """Positions of the longest row."""
        return self._longest

    def lengths(self, rows: Tensor) -> Tensor:
        """Positions of rows, (batch,), of rows (batch,)."""
        return self._length[rows.to(self.device)]

    def sequences(self, rows: Tensor, length: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Token sequences, padded with zeros.

        Args:
            rows: Row numbers, (batch,); on the CPU where the features are.
            length: Tokens to pad to, at least those of the longest row; default: the longest of
                the batch. Given, nothing is read back from a GPU.

        Returns:
            Features (batch, tokens, dim) float16 and mask (batch, tokens), True = real; None where
            the rows of all samples are equally long.

        Raises:
            SettingsError: The cache holds pooled vectors only.
        """
        if not self._longest:
            raise SettingsError(
                f"{self.name} was extracted with tokens = 'none': it holds pooled vectors only.",
                "Use level = 'pooled', or extract with --tokens keep.",
            )
        rows = rows.to(self.device)
        lengths = self.lengths(rows)
        if length is None:
            length = int(lengths.max()) if len(rows) else 0
        if self._equally_long and length == self._longest:
            return self._whole(rows), None
        steps = torch.arange(length, device=self.device)
        mask = steps < lengths[:, None]
        position = self._start[rows, None] + steps
        if len(self._blocks) == 1:  # places after a row's end are read and then cleared
            features = self._blocks[0][position.clamp_max(len(self._blocks[0]) - 1)]
            return features.masked_fill_(~mask[..., None], 0.0), mask
        features = torch.zeros(
            (len(rows), length, self.dim), dtype=self.pooled.dtype, device=self.device
        )
        blocks = self._block[rows]
        for number in blocks.unique().tolist():
            chosen = (blocks == number).nonzero().squeeze(1)
            row_of, step_of = mask[chosen].nonzero(as_tuple=True)
            at = chosen[row_of]
            features[at, step_of] = self._blocks[number][position[at, step_of]]
        return features, mask

    def _whole(self, rows: Tensor) -> Tensor:
        """Sequences of equally long rows, copied row by row, (batch, tokens, dim)."""
        places = self._start[rows] // self._longest
        blocks = [block.unflatten(0, (-1, self._longest)) for block in self._blocks]
        if len(blocks) == 1:
            return blocks[0].index_select(0, places)
        features = self.pooled.new_empty((len(rows), self._longest, self.dim))
        owners = self._block[rows]
        for number in owners.unique().tolist():
            chosen = (owners == number).nonzero().squeeze(1)
            features.index_copy_(0, chosen, blocks[number].index_select(0, places[chosen]))
        return features


_MOMENTS_KEPT = 64
"""Sets of items whose moments a bank keeps: those of the folds of a search, by what is read."""
EncoderPair = tuple[str, str]
"""Names of a text and of an image encoder."""
OWN_PAIR: EncoderPair = (DEFAULT_ENCODER, DEFAULT_ENCODER)


class FeatureBank:
    """Both modalities of the same samples, with labels.

    Args:
        text: Text rows.
        image: Image rows.
        guids: Samples, in the order that indices count.
        labels: Class codes, −1 where unknown, (samples,).
        partial: Samples may lack a modality, which is then masked out.
        choice: What else there is of the same samples.

    Raises:
        DamagedCacheError: A modality lacks samples, and ``partial`` is not set.
    """

    def __init__(
        self,
        text: ModalityFeatures,
        image: ModalityFeatures,
        guids: Sequence[str],
        labels: Sequence[int],
        *,
        partial: bool = False,
        choice: BankChoice | None = None,
    ) -> None:
        self.text, self.image = text, image
        self._choice = choice
        self.guids = list(guids)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self._partial = partial
        self._moments: dict[Any, dict[str, tuple[Tensor, Tensor]]] = {}
        self._text_rows = _row_table(text, self.guids, partial)
        self._image_rows = _row_table(image, self.guids, partial)

    def __len__(self) -> int:
        return len(self.guids)

    def to(self, device: torch.device) -> FeatureBank:
        """Moves the features to a device where they fit; on the CPU they stay mapped."""
        if self._choice is not None:
            self._choice.device = device
        self.text.to(device)
        self.image.to(device)
        self.labels = self.labels.to(device)
        return self

    def using(self, text: str, image: str) -> FeatureBank:
        """The same samples as two encoders see them.

        Args:
            text: Name of the text encoder.
            image: Name of the image encoder.

        Raises:
            SettingsError: This bank has no choice of encoders.
            MmsaError: As opening their features raises.
        """
        if self._choice is not None:
            return self._choice.bank(text, image)
        if (text, image) != OWN_PAIR:
            raise SettingsError(
                f"These features are of one encoder a side; asked for are {text!r} and {image!r}."
            )
        return self

    def dims(self, *, level: str, text_pool: str, image_pool: str) -> Dims:
        """Features of what `batch` gives with the same arguments.

        Raises:
            SettingsError: Unknown pool.
        """
        vectors = {
            f"{modality}_{pool}": features.vector_dim(pool)
            for modality, features, pools in (
                ("text", self.text, text_pool),
                ("image", self.image, image_pool),
            )
            for pool in split_pools(pools)
        }
        if level == "pooled":
            return Dims(self.text.vector_dim(text_pool), self.image.vector_dim(image_pool), vectors)
        return Dims(self.text.dim, self.image.dim, vectors)

    def items(self, samples: Sequence[int] | np.ndarray, *, variants: bool) -> Tensor:
        """Lists what an epoch goes through.

        Args:
            samples: Sample indices.
            variants: Also the augmented copies, text variant i with image variant i.

        Returns:
            (items, 3) int64: sample, row of the text, row of the image; originals first. A row is
            −1 where an original lacks the modality.
        """
        chosen = torch.as_tensor(np.asarray(samples), dtype=torch.int64)
        width = min(self._text_rows.shape[1], self._image_rows.shape[1]) if variants else 1
        parts = []
        for variant in range(width):
            rows = torch.stack(
                [chosen, self._text_rows[chosen, variant], self._image_rows[chosen, variant]], 1
            )
            parts.append(rows[(rows >= 0).all(1)] if variant else rows)
        return torch.cat(parts)

    def text_order(self, items: Tensor) -> Tensor:
        """Places of items (items, 3) from the shortest text to the longest, (items,) on the CPU."""
        return self.text.lengths(items[:, 1].clamp_min(0)).cpu().argsort(stable=True)

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
        self,
        items: Tensor,
        *,
        level: str,
        text_pool: str,
        image_pool: str,
        grid: int = 0,
        text_length: int | None = None,
    ) -> Batch:
        """Gathers one batch.

        Args:
            items: Rows of ``items()``, (batch, 3).
            level: ``pooled`` (sequences of one vector) or ``tokens``.
            text_pool: Which pooled vector of the text.
            image_pool: Which pooled vector of the image.
            grid: Cells along each side that patches are averaged to; 0 keeps them all.
            text_length: Tokens that texts are padded to; default: the longest of the batch.

        Raises:
            SettingsError: Unknown level or pool.
        """
        sequences: list[tuple[Tensor, Tensor | None]] = []
        vectors: dict[str, Tensor] = {}
        for modality, features, rows, pools, side, length in (
            ("text", self.text, items[:, 1], text_pool, 0, text_length),
            ("image", self.image, items[:, 2], image_pool, grid, None),
        ):
            there = rows.clamp_min(0)
            own = {f"{modality}_{p}": features.vectors(there, p) for p in split_pools(pools)}
            vectors |= own
            if level == "pooled":
                parts = list(own.values())
                sequence = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).unsqueeze(1)
                mask = None
            elif level == "tokens":
                sequence, mask = (
                    features.grid(there, side) if side else features.sequences(there, length)
                )
            else:
                raise SettingsError(f"Unknown level {level!r}.", "Valid: pooled, tokens.")
            if self._partial:
                has = (rows >= 0).to(sequence.device)[:, None]
                mask = has.expand(sequence.shape[:2]) if mask is None else mask & has
            sequences.append((sequence, mask))
        labels = self.labels[items[:, 0].to(self.labels.device)]
        return Batch(*sequences[0], *sequences[1], vectors, labels)

    def moments(self, items: Tensor, **read: Any) -> dict[str, tuple[Tensor, Tensor]]:
        """Means and standard deviations of all features over the real positions of items.

        They are kept for the next model that is trained on the same items.

        Args:
            items: Rows of ``items()``, (items, 3).
            read: What `batch` takes beside the items.

        Returns:
            (dim,) float32 each, of ``text``, ``image`` and every vector by its name.
        """
        key = (tuple(sorted(read.items())), hashlib.blake2b(items.numpy().tobytes()).digest())
        if key not in self._moments:
            while len(self._moments) >= _MOMENTS_KEPT:
                del self._moments[next(iter(self._moments))]
            self._moments[key] = self._measured(items, **read)
        return self._moments[key]

    def _measured(self, items: Tensor, **read: Any) -> dict[str, tuple[Tensor, Tensor]]:
        sums: dict[str, tuple[int, Tensor, Tensor]] = {}
        for chosen in self.text_order(items).split(512):
            batch = self.batch(items[chosen], **read)
            real = {
                "text": _real(batch.text, batch.text_mask),
                "image": _real(batch.image, batch.image_mask),
                **batch.vectors,
            }
            for name, values in real.items():
                exact = values.double()
                count, total, squares = sums.get(name, (0, 0.0, 0.0))
                sums[name] = (
                    count + len(exact),
                    total + exact.sum(0),
                    squares + exact.square().sum(0),
                )
        return {
            name: (
                (total / count).float(),
                (squares / count - (total / count).square()).clamp_min(0).sqrt().float(),
            )
            for name, (count, total, squares) in sums.items()
        }


class BankChoice:
    """Banks of the same samples by the encoders of their features, each opened when first needed.

    Args:
        open_features: Opens what an encoder made, from a modality and the encoder's name.
        guids: See `FeatureBank`.
        labels: See `FeatureBank`.
        partial: See `FeatureBank`.
    """

    def __init__(
        self,
        open_features: Callable[[str, str], ModalityFeatures],
        guids: Sequence[str],
        labels: Sequence[int],
        *,
        partial: bool = False,
    ) -> None:
        self._open, self._guids, self._labels = open_features, guids, labels
        self._partial = partial
        self._features: dict[tuple[str, str], ModalityFeatures] = {}
        self._banks: dict[EncoderPair, FeatureBank] = {}
        self.device = torch.device("cpu")
        """Where banks are moved to when they are asked for."""

    def bank(self, text: str, image: str) -> FeatureBank:
        """The bank of a text and an image encoder, by their names."""
        if (text, image) not in self._banks:
            self._banks[text, image] = FeatureBank(
                self._opened("text", text),
                self._opened("image", image),
                self._guids,
                self._labels,
                partial=self._partial,
                choice=self,
            )
        return self._banks[text, image].to(self.device)

    def _opened(self, modality: str, name: str) -> ModalityFeatures:
        key = (modality, name)
        if key not in self._features:
            self._features[key] = self._open(modality, name)
        return self._features[key]


def _real(sequence: Tensor, mask: Tensor | None) -> Tensor:
    """The real positions of sequences (batch, tokens, dim) one after another, (positions, dim)."""
    return sequence.flatten(0, 1) if mask is None else sequence[mask]


def split_pools(pools: str) -> list[str]:
    """``"mean@1+mean"`` → ``["mean@1", "mean"]``"""
    return pools.split("+")


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    """One tensor; NumPy copies in one thread, which a busy machine does not slow down."""
    return torch.from_numpy(np.concatenate(parts))


def _check_rows(guids: Sequence[str], variants: Sequence[int], name: str) -> None:
    """Every sample must have the variants 0, 1, … once each; tables are as wide as the largest.

    Raises:
        DamagedCacheError: One does not.
    """
    count = Counter(guids)
    distinct = set(zip(guids, variants, strict=True))
    wrong = next((g for g, v in distinct if not 0 <= v < count[g]), None)
    if wrong is not None or len(distinct) < len(guids):
        raise DamagedCacheError(
            f"{name}: the variants of {'a sample' if wrong is None else repr(wrong)} are not 0, 1, "
            "… once each.",
            AGAIN,
        )


def _row_table(features: ModalityFeatures, guids: list[str], partial: bool) -> Tensor:
    """(samples, variants) row numbers, −1 where a sample has no such variant."""
    place = {guid: i for i, guid in enumerate(guids)}
    sample = torch.tensor([place.get(guid, -1) for guid in features.guids])
    known = sample >= 0
    variant = torch.tensor(features.variants)
    table = torch.full((len(guids), int(variant.max()) + 1), -1)
    table[sample[known], variant[known]] = known.nonzero().squeeze(1)
    missing = [guids[i] for i in (table[:, 0] < 0).nonzero().squeeze(1).tolist()]
    if missing and not partial:
        raise DamagedCacheError(
            f"{features.name} lacks {len(missing)} samples, e.g. {missing[:3]}."
        )
    return table
