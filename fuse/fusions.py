"""The six fusions of projected text and image, one interface.

Every fusion is called as::

    fused, out = fusion(text, text_mask, image, image_mask, need_weights=False)

- ``text``: ``(batch, text_tokens, text_dim)``; ``image``: ``(batch, patches, image_dim)``;
- ``text_mask``, ``image_mask``: ``(batch, text_tokens)``, ``(batch, patches)``, boolean, True =
  real position;
- ``fused``: ``(batch, out_dim)``, the input of the classifier;
- ``out``: named intermediates: ``text`` and ``image`` (pooled vectors, where the fusion uses them),
  ``attended`` (pooled attention output), ``attention`` (see `CrossAttention`).

Everything is a sequence. The report's one-vector form (``level = "pooled"``) is a sequence of
length one for each modality, so a fusion does not know the level. With a single key the softmax of
the attention is 1, whatever the query: the attention output is then a linear map of the image
alone, which is why the report's "Attention" row equals its image-only row. The encoder always sees
at least two positions and has no such gap.

A row without any real image patch has attention output zero, and one without any real position at
all is fused from zeros: neither gives NaN.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from .projection import POOLINGS, Pool

Fused = tuple[Tensor, dict[str, Tensor]]


class Fusion(nn.Module):
    """The interface; see the module's docstring. `out_dim` is the length of the fused vector."""

    out_dim: int

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        raise NotImplementedError


class CrossAttention(nn.Module):
    """Text tokens attend over image patches: MHA(query = text, key = value = image).

    Scaled dot-product attention with `heads` heads as in "Attention Is All You Need", eq. 1, in
    PyTorch's `nn.MultiheadAttention`.

    Args:
        dim: features of queries, keys and output; divisible by `heads`.
        heads: number of heads.
        dropout: probability with which an attention weight is zeroed in training.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)

    def forward(
        self, text: Tensor, image: Tensor, image_mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attends.

        Args:
            text: ``(batch, text_tokens, dim)``.
            image: ``(batch, patches, dim)``.
            image_mask: ``(batch, patches)``, True = real position.
            need_weights: also return the weights; this rules out PyTorch's fused kernel.

        Returns:
            The attended tokens ``(batch, text_tokens, dim)``, zero in rows without a real patch,
            and the weights ``(batch, text_tokens, patches)`` averaged over the heads, or None.
            In eval mode the weights of a real row sum to 1 over its real patches (in training
            mode they have gone through the dropout). The rows of padded text tokens hold weights
            too; they mean nothing.
        """
        empty = ~image_mask.any(dim=1)
        attended, weights = self.mha(
            text,
            image,
            image,
            key_padding_mask=_padding_mask(image_mask),
            need_weights=need_weights,
        )
        attended = attended.masked_fill(empty[:, None, None], 0.0)
        if weights is not None:
            weights = weights.masked_fill(empty[:, None, None], 0.0)
        return attended, weights


class Concat(Fusion):
    """[pool(t) ; pool(v)]; the two may differ in length."""

    def __init__(self, text_dim: int, image_dim: int, pooling: str) -> None:
        super().__init__()
        self.out_dim = text_dim + image_dim
        self.text_pool = Pool(pooling, text_dim)
        self.image_pool = Pool(pooling, image_dim)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        t = self.text_pool(text, text_mask)
        v = self.image_pool(image, image_mask)
        return torch.cat([t, v], dim=1), {"text": t, "image": v}


class Combine(Fusion):
    """pool(t) + pool(v)."""

    def __init__(self, dim: int, pooling: str) -> None:
        super().__init__()
        self.out_dim = dim
        self.text_pool = Pool(pooling, dim)
        self.image_pool = Pool(pooling, dim)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        t = self.text_pool(text, text_mask)
        v = self.image_pool(image, image_mask)
        return t + v, {"text": t, "image": v}


class Attention(Fusion):
    """pool(MHA(t, v, v)), pooled over the text tokens."""

    def __init__(self, dim: int, heads: int, dropout: float, pooling: str) -> None:
        super().__init__()
        self.out_dim = dim
        self.attention = CrossAttention(dim, heads, dropout)
        self.attended_pool = Pool(pooling, dim)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        attended, weights = self.attention(text, image, image_mask, need_weights)
        a = self.attended_pool(attended, text_mask)
        return a, _with_weights({"attended": a}, weights)


class AttentionConcat(Fusion):
    """[pool(t) ; pool(v) ; pool(MHA(t, P·v, P·v))] with P = Linear(image_dim, text_dim)."""

    def __init__(
        self, text_dim: int, image_dim: int, heads: int, dropout: float, pooling: str
    ) -> None:
        super().__init__()
        self.out_dim = 2 * text_dim + image_dim
        self.image_to_text = nn.Linear(image_dim, text_dim)
        self.attention = CrossAttention(text_dim, heads, dropout)
        self.text_pool = Pool(pooling, text_dim)
        self.image_pool = Pool(pooling, image_dim)
        self.attended_pool = Pool(pooling, text_dim)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        keys = self.image_to_text(image)
        attended, weights = self.attention(text, keys, image_mask, need_weights)
        t = self.text_pool(text, text_mask)
        v = self.image_pool(image, image_mask)
        a = self.attended_pool(attended, text_mask)
        out = _with_weights({"text": t, "image": v, "attended": a}, weights)
        return torch.cat([t, v, a], dim=1), out


class AttentionCombine(Fusion):
    """pool(t) + pool(v) + pool(MHA(t, v, v))."""

    def __init__(self, dim: int, heads: int, dropout: float, pooling: str) -> None:
        super().__init__()
        self.out_dim = dim
        self.attention = CrossAttention(dim, heads, dropout)
        self.text_pool = Pool(pooling, dim)
        self.image_pool = Pool(pooling, dim)
        self.attended_pool = Pool(pooling, dim)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        attended, weights = self.attention(text, image, image_mask, need_weights)
        t = self.text_pool(text, text_mask)
        v = self.image_pool(image, image_mask)
        a = self.attended_pool(attended, text_mask)
        return t + v + a, _with_weights({"text": t, "image": v, "attended": a}, weights)


class Encoder(Fusion):
    """Mean over the real positions of TransformerEncoder([t ; v]).

    Post-norm layers with ReLU, PyTorch's defaults, as in the report. No position or modality
    embedding: the report has none. The result is always a mean; `pooling` does not apply.

    Args:
        dim: features of a position; divisible by `heads`.
        heads: attention heads a layer.
        layers: number of layers.
        ffn: hidden units of a layer's feed-forward part.
        dropout: probability, used in attention, feed-forward and residual branches.
    """

    def __init__(self, dim: int, heads: int, layers: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.out_dim = dim
        layer = nn.TransformerEncoderLayer(dim, heads, ffn, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.pool = Pool("mean", dim)

    def forward(
        self,
        text: Tensor,
        text_mask: Tensor,
        image: Tensor,
        image_mask: Tensor,
        need_weights: bool = False,
    ) -> Fused:
        """Fuses; see the module's docstring."""
        both = torch.cat([text, image], dim=1)
        mask = torch.cat([text_mask, image_mask], dim=1)
        encoded = self.encoder(both, src_key_padding_mask=_padding_mask(mask))
        return self.pool(encoded, mask), {}


class FusionBuilder(Protocol):
    """A builder takes every setting and uses those that its fusion has."""

    def __call__(
        self,
        *,
        text_dim: int,
        image_dim: int,
        heads: int,
        layers: int,
        ffn: int,
        dropout: float,
        pooling: str,
    ) -> Fusion:
        """Builds the fusion."""


def _concat(*, text_dim: int, image_dim: int, pooling: str, **_: object) -> Fusion:
    return Concat(text_dim, image_dim, pooling)


def _combine(*, text_dim: int, pooling: str, **_: object) -> Fusion:
    return Combine(text_dim, pooling)


def _attention(*, text_dim: int, heads: int, dropout: float, pooling: str, **_: object) -> Fusion:
    return Attention(text_dim, heads, dropout, pooling)


def _attention_concat(
    *, text_dim: int, image_dim: int, heads: int, dropout: float, pooling: str, **_: object
) -> Fusion:
    return AttentionConcat(text_dim, image_dim, heads, dropout, pooling)


def _attention_combine(
    *, text_dim: int, heads: int, dropout: float, pooling: str, **_: object
) -> Fusion:
    return AttentionCombine(text_dim, heads, dropout, pooling)


def _encoder(
    *, text_dim: int, heads: int, layers: int, ffn: int, dropout: float, **_: object
) -> Fusion:
    return Encoder(text_dim, heads, layers, ffn, dropout)


FUSIONS: dict[str, FusionBuilder] = {
    "concat": _concat,
    "combine": _combine,
    "attention": _attention,
    "attention_concat": _attention_concat,
    "attention_combine": _attention_combine,
    "encoder": _encoder,
}
"""Every fusion by name."""

NEEDS_EQUAL_DIMS = frozenset({"combine", "attention", "attention_combine", "encoder"})
"""Fusions that add or mix text and image features and so need ``image_dim == text_dim``."""

NEEDS_HEADS = frozenset({"attention", "attention_concat", "attention_combine", "encoder"})
"""Fusions with attention heads, whose `text_dim` must be divisible by `heads`."""


def check_fusion(name: str, *, text_dim: int, image_dim: int, heads: int) -> None:
    """Checks a fusion's name and sizes without building it, all problems in one error.

    Raises:
        ValueError: unknown name, or sizes that the fusion cannot take; the message names the flag
            to change.
    """
    check_fusion_name(name)
    problems = []
    if name in NEEDS_EQUAL_DIMS and image_dim != text_dim:
        problems.append(
            f"it needs image_dim equal to text_dim, received image_dim {image_dim} and "
            f"text_dim {text_dim}: set --image-dim {text_dim} or leave --image-dim out"
        )
    if name in NEEDS_HEADS and (heads < 1 or text_dim % heads):
        problems.append(
            f"its text_dim must be divisible by heads, received text_dim {text_dim} and "
            f"heads {heads}: change --text-dim or --heads"
        )
    if problems:
        raise ValueError(f"fusion {name!r}: " + "; ".join(problems))


def check_fusion_name(name: str) -> None:
    """Raises ValueError, with the valid names, when there is no such fusion."""
    if name not in FUSIONS:
        raise ValueError(f"unknown fusion {name!r}; valid: {', '.join(FUSIONS)}")


def build_fusion(
    name: str,
    *,
    text_dim: int,
    image_dim: int,
    heads: int = 8,
    layers: int = 6,
    ffn: int = 2048,
    dropout: float = 0.25,
    pooling: str = "mean",
) -> Fusion:
    """Builds a fusion by name.

    Args:
        name: one of `FUSIONS`.
        text_dim: features of a projected text token.
        image_dim: features of a projected image patch.
        heads: attention heads; ignored by ``concat`` and ``combine``.
        layers: layers of ``encoder``.
        ffn: hidden units of the feed-forward part of ``encoder``.
        dropout: probability inside attention and encoder layers.
        pooling: one of `projection.POOLINGS`; ignored by ``encoder``, which takes the mean.

    Raises:
        ValueError: unknown name or pooling, or sizes that the fusion cannot take.
    """
    check_fusion(name, text_dim=text_dim, image_dim=image_dim, heads=heads)
    if pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}; valid: {', '.join(POOLINGS)}")
    if layers < 1:
        raise ValueError(f"layers: at least 1 is needed, received {layers}: change --layers")
    return FUSIONS[name](
        text_dim=text_dim,
        image_dim=image_dim,
        heads=heads,
        layers=layers,
        ffn=ffn,
        dropout=dropout,
        pooling=pooling,
    )


def _padding_mask(mask: Tensor) -> Tensor:
    """PyTorch's polarity (True = ignore) from ours (True = real), ``(batch, tokens)`` both.

    A row without any real position ignores nothing, because a softmax over nothing is NaN; the
    caller zeroes what comes out of such a row.
    """
    return ~mask & mask.any(dim=1, keepdim=True)


def _with_weights(out: dict[str, Tensor], weights: Tensor | None) -> dict[str, Tensor]:
    """`out` with the attention weights under ``attention`` if there are any."""
    return out if weights is None else {**out, "attention": weights}
