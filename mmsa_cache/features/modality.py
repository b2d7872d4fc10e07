"""The cached rows of one modality as tensors: pooled vectors, and `Positions`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.errors import CacheNotFoundError, DamagedCacheError, SettingsError
from mmsa_cache.names import unknown_name
from mmsa_cache.native.device import explain_out_of_memory
from mmsa_cache.store.reader import open_features
from mmsa_cache.store.schema import SHARED, Shard

from .computed_pools import COMPUTED, compute_pool
from .gather import gather_rows, split_by_shard
from .positions import Positions
from .rows import SampleRows

DerivedKey = int | str
"""What is computed from positions: a pool by its name, a grid of patches by its side."""


class ModalityFeatures:
    """Cached rows of one modality.

    Args:
        shards: Where the rows are.
        name: What to call this in errors.
        rows: Numbers of the rows that are wanted, counted over all shards; default: all.
        table: Rows of each sample, the original first, −1 where there is none, (samples, variants);
            default: a sample a row.

    Raises:
        DamagedCacheError: There are no rows, or the shards do not fit together.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        name: str,
        rows: NDArray[np.int64] | None = None,
        table: NDArray[np.int64] | None = None,
    ) -> None:
        found = list(shards)
        rows = np.arange(sum(map(len, found))) if rows is None else rows
        if not len(rows):
            raise DamagedCacheError(f"{name}: the cache holds no rows.")
        self.name = name
        self.pools = found[0].pools
        other = next((i for i, shard in enumerate(found) if shard.pools != self.pools), None)
        if other is not None:
            raise DamagedCacheError(f"{name}: shard {other} has other pools than the first.")
        parts, block = split_by_shard(found, rows)
        self.pooled = gather_rows([shard.pooled for shard, _, _ in parts], parts)
        """(rows, pools, dim) float16"""
        shared = [shard.shared for shard, _, _ in parts if shard.shared is not None]
        self.shared = gather_rows(shared, parts) if len(shared) == len(parts) else None
        """(rows, shared_dim) float16, of joint models"""
        self.table = torch.from_numpy(np.arange(len(rows))[:, None] if table is None else table)
        """(samples, variants) int64"""
        self._positions = Positions(parts, block)
        self._derived: dict[DerivedKey, Tensor] = {}

    @classmethod
    def open(cls, folder: Path, rows: SampleRows, *, verify: bool = True) -> ModalityFeatures:
        """Opens the rows of some samples.

        Args:
            folder: The features of an encoder.
            rows: What is wanted of them.
            verify: Re-hash every file that was touched since it was last verified.

        Raises:
            CacheNotFoundError: Some of them are not there.
            DamagedCacheError: A file is not what was sealed.
        """
        features = open_features(folder, verify=verify)
        rows = rows.of(features.encoder.identity)
        places = features.find_rows(rows.keys)
        if missing := int((places < 0).sum()):
            message = f"{missing} of {len(places)} rows are not in {folder}."
            raise CacheNotFoundError(message, "Run mmsa extract: it computes what is missing.")
        if not len(places):  # no sample has any: a row stands for the sizes
            places = np.zeros(1, np.int64)
        return cls(features.shards, str(folder), places, rows.table)

    @property
    def dim(self) -> int:
        return self.pooled.shape[-1]

    @property
    def device(self) -> torch.device:
        return self.pooled.device

    def to(self, device: torch.device, tokens: bool = True) -> None:
        """Moves everything to a device.

        Args:
            device: Where to.
            tokens: Move the tokens at once, not only when they are first read.
        """
        if device.type not in ("cpu", self.device.type):
            self._positions.lengths = self._positions.lengths.to(device)
            self.pooled = self.pooled.to(device)
            self.shared = None if self.shared is None else self.shared.to(device)
            self._derived = {key: of.to(device) for key, of in self._derived.items()}
        if tokens:
            self._positions.to(self.device)

    def _pool(self, name: str) -> Tensor:
        """Every row's vector of one pool, (rows, dim); SettingsError where there is none."""
        if name in self.pools:
            return self.pooled[:, self.pools.index(name)]
        if name == SHARED and self.shared is not None:
            return self.shared
        if name in COMPUTED and self.longest:
            return self.derived(name)
        names = [*self.pools, *([SHARED] if self.shared is not None else [])]
        more = "mean@N and cls@N come from pool_layers = [N] in mmsa.toml, "
        more += f"{', '.join(COMPUTED)} from tokens (mmsa extract --tokens keep)."
        raise unknown_name(f"{self.name} has no pool", name, names, more, known="Valid")

    def vector_dim(self, pool: str) -> int:
        """Features of a pooled vector."""
        return self.dim if pool in COMPUTED and self.longest else self._pool(pool).shape[-1]

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
        # Indexing by [rows] took eight times as long on the CPU.
        return self._pool(pool).index_select(0, rows.to(self.device))

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
        return self.derived(side).index_select(0, rows.to(self.device)), None

    def derived(self, key: DerivedKey) -> Tensor:
        """Features of all rows that are computed from their positions, once.

        Args:
            key: A name of `COMPUTED`, or the side of a grid.

        Returns:
            (rows, dim) of a pool, (rows, side·side, dim) of a grid, float16.

        Raises:
            SettingsError: The positions form no such grid.
        """
        if key not in self._derived:
            if isinstance(key, str):
                values = compute_pool(key, len(self.pooled), self.sequences)
            else:
                values = self._average(key)
            self._derived[key] = values
        return self._derived[key]

    def use_derived(self, key: DerivedKey, values: Tensor) -> None:
        """Uses what `derived` gave for the same rows in another process.

        Raises:
            DamagedCacheError: The shape is wrong.
        """
        cells = () if isinstance(key, str) else (key * key,)
        if values.shape != (len(self.pooled), *cells, self.dim):
            shape = tuple(values.shape)
            raise DamagedCacheError(f"{self.name}: {key!r} of shape {shape} is of other rows.")
        self._derived[key] = values.to(self.device)

    def _average(self, side: int) -> Tensor:
        """Patches averaged to a grid, (rows, side·side, dim) float16."""
        counts = self._positions.lengths.unique().tolist()
        whole = math.isqrt(counts[0])
        if len(counts) > 1 or whole * whole != counts[0] or not 1 <= side <= whole:
            raise SettingsError(
                f"{self.name} has {counts} positions a row: they form no {side}×{side} grid.",
                "Set grid to 0 (all patches), or to at most the side of the model's own grid.",
            )
        parts = []
        for part in torch.arange(len(self.pooled)).split(256):
            patches, _ = self.sequences(part)
            square = patches.float().transpose(1, 2).unflatten(2, (whole, whole))
            cells = torch.nn.functional.adaptive_avg_pool2d(square, side)
            parts.append(cells.flatten(2).transpose(1, 2).to(patches.dtype))
        return torch.cat(parts)

    @property
    def longest(self) -> int:
        """Positions of the longest row."""
        return self._positions.longest

    def lengths(self, rows: Tensor) -> Tensor:
        """Positions of rows, (batch,), of rows (batch,)."""
        return self._positions.lengths[rows.to(self.device)]

    def sequences(
        self, rows: Tensor, length: int | None = None, *, zeros: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Token sequences, padded with zeros.

        Args:
            rows: Row numbers, (batch,); on the CPU where the features are.
            length: Tokens to pad to, at least those of the longest row; default: the longest of
                the batch. Given, nothing is read back from a GPU.
            zeros: Otherwise padding may hold numbers of other rows, which saves a pass over it.

        Returns:
            Features (batch, tokens, dim) float16 and mask (batch, tokens), True = real; None where
            the rows of all samples are equally long.

        Raises:
            SettingsError: The cache holds pooled vectors only.
            DeviceError: The device has no memory for the tokens.
        """
        if not self.longest:
            raise SettingsError(
                f"{self.name} was extracted with tokens = 'none': it holds pooled vectors only.",
                "Use level = 'pooled', or extract with --tokens keep.",
            )
        with explain_out_of_memory(f"for the tokens of {len(self.pooled)} rows on {self.device}"):
            self._positions.to(self.device)
        return self._positions.of(rows.to(self.device), length, zeros=zeros)
