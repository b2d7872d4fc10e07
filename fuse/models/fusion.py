"""The interface of a fusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from .projection import Pool

Fused = tuple[Tensor, dict[str, Tensor]]


class Pair(NamedTuple):
    """Projected text and image of a batch. True in a mask = real position; None: all are real."""

    text: Tensor
    """``(batch, text_tokens, text_dim)``"""
    text_mask: Tensor | None
    """``(batch, text_tokens)``, boolean"""
    image: Tensor
    """``(batch, patches, image_dim)``"""
    image_mask: Tensor | None
    """``(batch, patches)``, boolean"""


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Options of all fusions; each ignores those that do not concern it."""

    text_dim: int
    """Features of a projected text token."""
    image_dim: int
    """Features of a projected image patch."""
    heads: int = 8
    """Attention heads."""
    layers: int = 6
    """Layers of ``encoder``."""
    ffn: int = 2048
    """Hidden units of the feed-forward part of ``encoder``."""
    rank: int = 4
    """Rank of the weight tensor of ``lowrank``; 4 is in the grid of its authors' code."""
    dropout: float = 0.25
    """Probability inside attention and encoder layers."""
    directions: str = "text"
    """In the attention fusions: ``text``, text tokens query patches; ``both``, patches query text
    tokens too."""
    modality_embeddings: bool = False
    """In ``encoder``: a learned vector for each modality, not in the report."""
    text_pooling: str = "mean"
    """One of `projection.POOLINGS`."""
    image_pooling: str = "mean"
    """One of `projection.POOLINGS`."""

    def dim(self, modality: str) -> int:
        """Features of a projected position of a modality."""
        return self.text_dim if modality == "text" else self.image_dim

    def pool(self, modality: str) -> Pool:
        """The pooling of a projected modality."""
        kind = self.text_pooling if modality == "text" else self.image_pooling
        return Pool(kind, self.dim(modality))

    def pools(self) -> tuple[Pool, Pool]:
        """The poolings of the projected text and image."""
        return self.pool("text"), self.pool("image")


class Fusion(nn.Module):
    """Fuses a pair into one vector; see `fusions` for what each of them computes.

    Args:
        config: sizes and options.
    """

    equal_dims: ClassVar[bool] = False
    """Whether it adds or mixes text and image features, and so needs ``image_dim == text_dim``."""
    has_heads: ClassVar[bool] = False
    """Whether it has attention heads, whose number must divide `text_dim`."""
    separate_heads: ClassVar[bool] = False
    """Whether each modality's part of the fused vector has its own head (`head.LateHead`)."""

    out_dim: int
    """Length of the fused vector."""
    computes: str
    """The formula, in the symbols of `fusions`."""
    text_pool: Pool
    image_pool: Pool

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        """Fuses.

        Args:
            pair: the projected sequences.
            need_weights: add attention weights to the intermediates, if there are any.

        Returns:
            ``(batch, out_dim)`` and the named intermediates, see `fusions`.
        """
        raise NotImplementedError

    def pooled(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """pool(t) ``(batch, text_dim)`` and pool(v) ``(batch, image_dim)``."""
        return (
            self.text_pool(pair.text, pair.text_mask),
            self.image_pool(pair.image, pair.image_mask),
        )
