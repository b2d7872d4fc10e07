"""A batch of both modalities, and the lengths of its features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mmsa_cache.names import MODALITIES, EncoderPair, pool_of, split_terms

MAX_DIM = 1 << 16
"""Numbers of a vector."""


_LENGTHS = 8
"""Texts of few lengths: oneDNN compiles and keeps its products for every shape anew."""


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

    def present(self, modality: str) -> Tensor | None:
        """Whether each row has a modality, (batch,) bool; None: all do."""
        mask: Tensor | None = getattr(self, f"{modality}_mask")
        return None if mask is None else mask.any(1)

    def filled(self, name: str, absent: Tensor | float) -> Tensor:
        """A vector by its name, (batch, dim), with a value where a row lacks its modality."""
        vector, present = self.vectors[name], self.present(name.partition("_")[0])
        if present is None:
            return vector
        value = torch.as_tensor(absent, dtype=vector.dtype, device=vector.device)
        return vector.where(present[:, None], value)

    def split(self, rows: int, *, trim: bool = False) -> Iterator[Batch]:
        """Smaller batches of so many rows, without copying.

        Args:
            rows: Of each but the last.
            trim: Cut off the text positions that no row of a part has, but for a multiple of
                `_LENGTHS`; reads masks back.
        """
        for first in range(0, len(self.labels), rows):
            part = slice(first, first + rows)
            text = self.text[part]
            mask = None if self.text_mask is None else self.text_mask[part]
            if trim and mask is not None:
                longest = -(-max(1, int(mask.sum(1).max())) // _LENGTHS) * _LENGTHS
                text, mask = text[:, :longest], mask[:, :longest]
            yield Batch(
                text,
                mask,
                self.image[part],
                None if self.image_mask is None else self.image_mask[part],
                {name: vector[part] for name, vector in self.vectors.items()},
                self.labels[part],
            )


Length = Annotated[int, Field(ge=1, le=MAX_DIM, strict=True)]


@dataclass(frozen=True, slots=True)
class Dims:
    """Features of the inputs that a model may read."""

    text: Length
    image: Length
    vectors: Annotated[dict[str, Length], Field(max_length=256)]
    """By the names of `Batch.vectors`."""


def required_pools(
    readers: Sequence[tuple[EncoderPair, Dims]], modality: str, encoder: str
) -> dict[str, int]:
    """The pools of an encoder that some models read, and their features.

    Args:
        readers: Of each model, its encoders and what it reads.
        modality: ``text`` or ``image``.
        encoder: Name of the encoder.
    """
    found: dict[str, int] = {}
    for pair, dims in readers:
        own = split_terms(pair[MODALITIES.index(modality)])[0]
        for vector, size in dims.vectors.items():
            name, _, pool = pool_of(vector).rpartition(".")
            if vector.startswith(f"{modality}_") and (name or own) == encoder:
                found[pool] = size
    return found
