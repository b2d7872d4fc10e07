"""What every frozen encoder gives.

A *tower* is one model of one library, called as that library wants it; an encoder puts reading,
pooling, precision and the choice of positions around it. Text and image encoders differ in what
they prepare, never in what they return.
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
    """(positions, dim): the kept positions of all rows, back to back"""
    lengths: list[int]
    """Positions kept of each row, (batch,)."""
    pooled: Tensor
    """(batch, pools, dim)"""
    shared: Tensor | None
    """(batch, shared_dim): the embedding that a joint model compares across modalities"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a row's features are."""

    positions: int
    """Positions of the longest row."""
    ragged: bool
    """Whether a row keeps as many positions as its input is long."""
    numbers_a_position: int
    numbers_besides: int
    """Pools and the shared embedding."""

    def bytes(self, inputs: Sequence[Tensor]) -> float:
        """Mean bytes a row in the cache, estimated from some rows' inputs."""
        positions: float = self.positions
        if self.ragged and inputs:
            positions = sum(len(value) for value in inputs) / len(inputs)
        return 2 * (positions * self.numbers_a_position + self.numbers_besides) + _ROW_OVERHEAD

    @property
    def padded_float32_bytes(self) -> int:
        """Bytes a row if every row were padded to the longest and stored in float32."""
        return 4 * (self.positions * self.numbers_a_position + self.numbers_besides)

    @classmethod
    def of(cls, probe: Encoded, positions: int, *, ragged: bool) -> Size:
        """From one encoded row and the positions of the longest."""
        besides = probe.pooled[0].numel()
        besides += 0 if probe.shared is None else probe.shared.shape[1]
        return cls(positions, ragged, probe.tokens.shape[1], besides)


class TextOutput(NamedTuple):
    """What a text tower gives for one batch."""

    hidden: Tensor
    """(batch, tokens, dim)"""
    vectors: dict[str, Tensor]
    """The model's own pooled vectors by name, (batch, dim) each."""
    shared: Tensor | None
    """(batch, shared_dim), joint models only."""
    inner: list[Tensor]
    """The inner layers asked for, (batch, tokens, dim) each."""


class TextTower(Protocol):
    """One text model, called as its library wants it."""

    limit: int | None
    """Longest sequence it takes; None where it has no limit."""
    full_length: bool
    """Whether it reads every text padded to ``limit``, without a mask (SigLIP was trained so)."""

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        """Runs it once on ids and mask, (batch, tokens) each, True = real token."""

    def to(self, device: torch.device) -> object: ...


class ImageOutput(NamedTuple):
    """What an image tower gives for one batch."""

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


class ImageTower(Protocol):
    """One image model, called as its library wants it."""

    def __call__(self, pixels: Tensor, layer: str | int, inner: Sequence[int] = ()) -> ImageOutput:
        """Runs it once on normalised pixels, (batch, 3, side, side)."""

    def to(self, device: torch.device) -> object: ...


class Prepare(Protocol):
    """Texts or pictures → inputs of the model; the first axis is what batches are sorted by.

    Where it can be pickled, without its model, other processes may do it.
    """

    def __call__(self, values: Iterable[Any], /) -> list[Tensor]: ...


class HasPrepare(Protocol):
    """What says how values are prepared."""

    @property
    def prepare(self) -> Prepare: ...


class Encoder(HasPrepare, Protocol):
    """What the loop needs of an encoder."""

    label: str
    options: Options
    pools: tuple[str, ...]
    size: Size
    equal_inputs: bool
    """Whether all inputs are equally long, so that their order in a batch does not matter."""

    def encode(self, batch: Sequence[Tensor]) -> Encoded: ...


class ResolvedEncoder(Protocol):
    """An encoder whose files are found and hashed; it is not loaded yet."""

    @property
    def identity(self) -> EncoderIdentity: ...

    def computed_in(self, compute: str) -> Self:
        """The same encoder in another precision."""

    def load(self, device: torch.device) -> Encoder: ...
