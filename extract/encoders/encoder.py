"""What every frozen encoder gives, and the choices that all of them share.

A *tower* is one model of one library, called as that library wants it; an encoder puts reading,
pooling, precision and the choice of positions around it. Text and image encoders differ in what
they prepare, never in what they return.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_cache.errors import ModelError

from .linear import LinearByOneDnn

_ROW_OVERHEAD = 64
"""Bytes of a row's name, variant, operation and offset."""

COMPUTE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


class Encoder(Protocol):
    """What the loop needs of an encoder."""

    label: str
    pools: tuple[str, ...]
    size: Size
    equal_inputs: bool
    """Whether all inputs are equally long, so that their order in a batch does not matter."""

    def prepare(self, values: Iterable[Any]) -> list[Tensor]:
        """Texts or pictures → inputs of the model; the first axis is what batches are sorted by."""

    def encode(self, batch: Sequence[Tensor]) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class Options:
    """Which features are kept, and how they are computed."""

    layer: str | int = "last"
    """``last`` (what the model returns), a number, or ``average:K`` of the last K."""
    tokens: str = "keep"
    """``keep``, ``pool:GxG`` (patches averaged to a grid) or ``none``."""
    compute: str = "float32"
    """``float32``, or autocast to ``bfloat16`` or ``float16``."""
    pool_layers: tuple[int, ...] = ()
    """Inner layers whose means are pools too, ``mean@N`` each."""

    def fields(self, modality: str) -> dict[str, Any]:
        """Their part of the fingerprint."""
        fields: dict[str, Any] = {
            "layer": self.layer,
            "tokens": self.tokens if modality == "image" or self.tokens == "none" else "keep",
            "compute": self.compute,
            "storage": "float16",
        }
        if self.pool_layers:  # caches made before there were any stay valid
            fields["pool_layers"] = list(self.pool_layers)
        return fields

    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) that patches are averaged to; None where they are not."""
        match = re.fullmatch(r"pool:(\d+)x(\d+)", self.tokens)
        return (int(match[1]), int(match[2])) if match else None


def check_layer(layer: int, count: int, name: str) -> None:
    """Refuses a layer that a model does not have.

    Raises:
        ModelError: ``layer`` is not below ``count``.
    """
    if layer >= count:
        raise ModelError(
            f"{name} has the layers 0 … {count - 1}, layer {layer} is asked for.",
            "Set layer to one of them, to average:K or to last; pool_layers to some of them.",
        )


def pick_states(states: Sequence[Tensor], layer: str | int, name: str) -> Tensor:
    """One layer's features, or the mean of the last K.

    Args:
        states: Features after every layer, equal shapes where they are averaged.
        layer: A number from 0, or ``average:K``.
        name: The model, for errors.

    Raises:
        ModelError: There is no such layer, or the layers' shapes differ.
    """
    count = len(states)
    if isinstance(layer, int):
        check_layer(layer, count, name)
        return states[layer]
    last = int(layer.removeprefix("average:"))
    if not 1 <= last <= count or len({tuple(state.shape) for state in states[-last:]}) > 1:
        raise ModelError(
            f"{name}: the last {last} of {count} layers cannot be averaged.",
            "They must exist and have one shape: a hierarchical model's stages differ.",
        )
    return torch.stack([state.float() for state in states[-last:]]).mean(0)


def mean_pools(
    means: Sequence[Tensor], layers: Sequence[int], dim: int, name: str
) -> dict[str, Tensor]:
    """Names the means of inner layers.

    Args:
        means: (batch, features) each.
        layers: Their numbers.
        dim: Features of the layer that is kept.
        name: The model, for errors.

    Raises:
        ModelError: A layer has another number of features than the one that is kept.
    """
    for layer, mean in zip(layers, means, strict=True):
        if mean.shape[1] != dim:
            raise ModelError(
                f"{name}: layer {layer} has {mean.shape[1]} features, the layer that is kept has "
                f"{dim}; both cannot lie in one cache.",
                "Leave it out of pool_layers: a hierarchical model's stages differ.",
            )
    return {f"mean@{layer}": mean for layer, mean in zip(layers, means, strict=True)}


def average_grid(patches: Tensor, have: tuple[int, int], want: tuple[int, int]) -> Tensor:
    """Averages patches to a coarser grid.

    Args:
        patches: (batch, rows · columns, dim), row by row from the top left.
        have: (rows, columns) of the patches.
        want: (rows, columns) of the result.

    Returns:
        (batch, want rows · want columns, dim)
    """
    square = patches.transpose(1, 2).unflatten(2, have)
    return F.adaptive_avg_pool2d(square, want).flatten(2).transpose(1, 2)


def precision(device: torch.device, compute: str) -> Any:
    """The context that a forward pass runs in; float32 means no autocast."""
    dtype = COMPUTE[compute]
    if dtype == torch.float32 and device.type == "cpu":
        return LinearByOneDnn()
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """Moves an input; to a GPU from pinned memory, so that the copy runs beside the model."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def to_storage(value: Tensor) -> Tensor:
    """float16 on the CPU; converted where it was computed, so that half the bytes travel."""
    return value.to(torch.float16).cpu()


class Halving:
    """Runs a model; halves batches once the device had no memory for one, and remembers it.

    Args:
        encoder: The frozen model.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._halved = False
        self._lock = threading.Lock()

    @property
    def halved(self) -> bool:
        """Whether batches are run in halves from now on."""
        return self._halved

    def run(self, batch: Sequence[Tensor]) -> list[Encoded]:
        """Encodes a batch, whole or in two halves.

        Raises:
            torch.OutOfMemoryError: Half a batch is too much as well.
        """
        if not self._halved:
            try:
                return [self.encoder.encode(batch)]
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                with self._lock:
                    self._halved = True
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        middle = (len(batch) + 1) // 2
        return [self.encoder.encode(part) for part in (batch[:middle], batch[middle:]) if part]
