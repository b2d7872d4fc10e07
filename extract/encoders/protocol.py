"""Interfaces of the frozen encoders.

A *tower* wraps one model of one library. An encoder adds preparation, pooling, precision and the
choice of positions. Text and image encoders differ in their inputs, never in what they return.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from mmsa_cache.store.identity import EncoderIdentity

from .options import Options

_ROW_OVERHEAD = 64
"""Bytes of a row's name, variant, operation and offset."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of one batch, float16, on the CPU."""

    tokens: Tensor
    """(positions, dim): the kept positions of all rows, concatenated"""
    lengths: list[int]
    """Number of kept positions of each row, (batch,)."""
    pooled: Tensor
    """(batch, pools, dim)"""
    shared: Tensor | None
    """(batch, shared_dim): embedding in the space that both modalities of a joint model share"""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of one row's features."""

    positions: int
    """Positions of the longest row."""
    ragged: bool
    """Whether a row keeps as many positions as its input is long."""
    position_numbers: int
    """Numbers of one position."""
    pooled_numbers: int
    """Numbers of all pools and the shared embedding."""

    def bytes(self, inputs: Sequence[Tensor]) -> float:
        """Mean bytes a row in the store, estimated from the inputs of some rows."""
        positions: float = self.positions
        if self.ragged and inputs:
            positions = sum(len(value) for value in inputs) / len(inputs)
        return 2 * (positions * self.position_numbers + self.pooled_numbers) + _ROW_OVERHEAD

    @property
    def padded_float32_bytes(self) -> int:
        """Bytes a row if all rows were padded to the longest and stored in float32."""
        return 4 * (self.positions * self.position_numbers + self.pooled_numbers)

    @classmethod
    def of(cls, probe: Encoded, positions: int, *, ragged: bool) -> Size:
        """Size by one encoded row and the positions of the longest."""
        shared = 0 if probe.shared is None else probe.shared.shape[1]
        return cls(positions, ragged, probe.tokens.shape[1], probe.pooled[0].numel() + shared)


class TextOutput(NamedTuple):
    """Output of a text tower for one batch."""

    hidden: Tensor
    """(batch, tokens, dim)"""
    vectors: dict[str, Tensor]
    """The model's own pooled vectors by name, (batch, dim) each."""
    shared: Tensor | None
    """(batch, shared_dim), joint models only."""
    inner: list[Tensor]
    """The inner layers asked for, (batch, tokens, dim) each."""


class TextTower(Protocol):
    """One text model."""

    limit: int | None
    """Longest sequence; None where there is no limit."""
    full_length: bool
    """Whether every text is padded to ``limit`` and not masked, as SigLIP was trained."""

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        """Runs the model.

        Args:
            ids: (batch, tokens)
            mask: (batch, tokens), True = real token.
            layer: See `Options`.
            inner: Further layers to return.
        """

    def to(self, device: torch.device) -> object: ...


class ImageOutput(NamedTuple):
    """Output of an image tower for one batch."""

    patches: Tensor
    """(batch, rows · columns, dim), row by row from the top left"""
    grid: tuple[int, int] | None
    """(rows, columns) of the patches; None where they form no grid"""
    vectors: dict[str, Tensor]
    """The model's own pooled vectors by name, (batch, dim) each."""
    shared: Tensor | None
    """(batch, shared_dim), joint models only."""
    inner: list[Tensor]
    """The inner layers asked for, (batch, patches, dim) each."""
    inner_cls: list[Tensor]
    """Their class tokens, (batch, dim) each; empty where the model has none."""


class ImageTower(Protocol):
    """One image model."""

    def __call__(self, pixels: Tensor, layer: str | int, inner: Sequence[int] = ()) -> ImageOutput:
        """Runs the model on normalised pixels, (batch, 3, side, side); see `TextTower`."""

    def to(self, device: torch.device) -> object: ...


class Prepare(Protocol):
    """Texts or pictures → inputs of the model. Batches are sorted by the first axis of an input.

    One that can be pickled runs in other processes too.
    """

    def __call__(self, values: Iterable[Any], /) -> list[Tensor]: ...


class HasPrepare(Protocol):
    """Anything with a way to prepare inputs."""

    @property
    def prepare(self) -> Prepare: ...


class Encoder(HasPrepare, Protocol):
    """What the extraction loop needs of an encoder."""

    label: str
    options: Options
    pools: tuple[str, ...]
    size: Size
    equal_inputs: bool
    """Whether all inputs have one length, so that batches need not be sorted."""

    def encode(self, batch: Sequence[Tensor]) -> Encoded: ...


class ResolvedEncoder(Protocol):
    """An encoder whose files are found and hashed, but not loaded."""

    @property
    def identity(self) -> EncoderIdentity: ...

    def computed_in(self, compute: str) -> Self:
        """The same encoder in another precision."""

    def load(self, device: torch.device) -> Encoder: ...
