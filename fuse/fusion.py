"""The interface of a fusion."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

Fused = tuple[Tensor, dict[str, Tensor]]


class Pair(NamedTuple):
    """Projected text and image of a batch. True in a mask = real position."""

    text: Tensor
    """``(batch, text_tokens, text_dim)``"""
    text_mask: Tensor
    """``(batch, text_tokens)``, boolean"""
    image: Tensor
    """``(batch, patches, image_dim)``"""
    image_mask: Tensor
    """``(batch, patches)``, boolean"""


class Fusion(nn.Module):
    """Makes one vector of a pair; see `fusions` for what each of them computes."""

    out_dim: int
    """Length of the fused vector."""

    computes: str
    """The formula, in the symbols of `fusions`."""

    separate_heads: bool = False
    """Each modality's part of the fused vector has a head of its own (`head.LateHead`)."""

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        """Fuses.

        Args:
            pair: the projected sequences.
            need_weights: put the attention weights into the second result, if there are any.

        Returns:
            ``(batch, out_dim)`` and the named intermediates, see `fusions`.
        """
        raise NotImplementedError
