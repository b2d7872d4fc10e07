"""Fusions with attention over the sequences; see `fusions` for the table of all."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from .attention import EncoderStack, MultiHeadAttention
from .fusion import Fused, Fusion, FusionConfig, Pair
from .linear import Linear
from .projection import Pool, as_mask

Directions = Literal["text", "both"]
DIRECTIONS: tuple[Directions, ...] = get_args(Directions)


class CrossAttention(nn.Module):
    """Pooled attention of text over image patches and, for both directions, of patches over text.

    pool(MHA(t, v, v)) over the text tokens and pool(MHA(v, t, t)) over the patches, each with its
    own weights.

    Args:
        config: `text_dim` is the length of a position of both modalities.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        dim = config.text_dim
        self.mha = MultiHeadAttention(dim, config.heads, config.dropout)
        self.pool = Pool(config.text_pooling, dim)
        self.image_mha = self.image_pool = None
        if config.directions == "both":
            self.image_mha = MultiHeadAttention(dim, config.heads, config.dropout)
            self.image_pool = Pool(config.image_pooling, dim)

    @property
    def formulas(self) -> list[str]:
        """What `forward` returns, in the symbols of `fusions`."""
        return ["pool(MHA(t, v, v))"] + ["pool(MHA(v, t, t))"] * (self.image_mha is not None)

    def forward(self, pair: Pair, need_weights: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
        """A vector ``(batch, dim)`` for each direction, and the intermediates (see `fusions`)."""
        text, text_mask, image, image_mask = pair
        attended, weights = self.mha(text, image, image_mask, need_weights)
        vectors = [self.pool(attended, text_mask)]
        out = {"attended": vectors[0]}
        if weights is not None:
            out["attention"] = weights
        if self.image_mha is not None and self.image_pool is not None:
            attended, weights = self.image_mha(image, text, text_mask, need_weights)
            vectors.append(self.image_pool(attended, image_mask))
            out["attended_image"] = vectors[1]
            if weights is not None:
                out["attention_image"] = weights
        return vectors, out


class Attention(Fusion):
    """[pool(MHA(t, v, v))], followed by pool(MHA(v, t, t)) for both directions."""

    equal_dims = True
    has_heads = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.attention = CrossAttention(config)
        self.out_dim = config.text_dim * len(self.attention.formulas)
        formulas = self.attention.formulas
        self.computes = f"[{' ; '.join(formulas)}]" if len(formulas) > 1 else formulas[0]

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        vectors, out = self.attention(pair, need_weights)
        return torch.cat(vectors, dim=1), out


class AttentionConcat(Fusion):
    """[pool(t) ; pool(v) ; pool(MHA(t, P·v, P·v))] with P = Linear(image_dim, text_dim).

    For both directions pool(MHA(P·v, t, t)) follows.
    """

    has_heads = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.image_to_text = Linear(config.image_dim, config.text_dim)
        self.attention = CrossAttention(config)
        self.text_pool, self.image_pool = config.pools()
        formulas = [formula.replace("v", "P·v") for formula in self.attention.formulas]
        self.out_dim = config.image_dim + config.text_dim * (1 + len(formulas))
        self.computes = f"[{' ; '.join(['pool(t)', 'pool(v)', *formulas])}]"

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        projected = pair._replace(image=self.image_to_text(pair.image))
        vectors, out = self.attention(projected, need_weights)
        t, v = self.pooled(pair)
        return torch.cat([t, v, *vectors], dim=1), {"text": t, "image": v, **out}


class AttentionCombine(Fusion):
    """pool(t) + pool(v) + pool(MHA(t, v, v)), for both directions + pool(MHA(v, t, t))."""

    equal_dims = True
    has_heads = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.attention = CrossAttention(config)
        self.text_pool, self.image_pool = config.pools()
        self.out_dim = config.text_dim
        self.computes = " + ".join(["pool(t)", "pool(v)", *self.attention.formulas])

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        vectors, out = self.attention(pair, need_weights)
        t, v = self.pooled(pair)
        fused = t + v
        for vector in vectors:
            fused = fused + vector
        return fused, {"text": t, "image": v, **out}


class EncoderFusion(Fusion):
    """Mean over the real positions of TransformerEncoder([t ; v]).

    Post-norm layers with ReLU, PyTorch's defaults, and no position embedding, as in the report. The
    result is always a mean; the poolings do not apply. Modality embeddings, which are added to all
    text tokens and to all patches so that attention can tell them apart, start at zero: as in the
    report's model.
    """

    equal_dims = True
    has_heads = True

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        dim = config.text_dim
        self.out_dim = dim
        self.text_embedding = self.image_embedding = None
        if config.modality_embeddings:
            self.text_embedding = nn.Parameter(torch.zeros(dim))
            self.image_embedding = nn.Parameter(torch.zeros(dim))
        self.encoder = EncoderStack(config.layers, dim, config.heads, config.ffn, config.dropout)
        self.pool = Pool("mean", dim)
        both = "[t + e_t ; v + e_v]" if config.modality_embeddings else "[t ; v]"
        self.computes = f"mean(TransformerEncoder({both})), {config.layers} layers"

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        text, text_mask, image, image_mask = pair
        if self.text_embedding is not None and self.image_embedding is not None:
            text, image = text + self.text_embedding, image + self.image_embedding
        mask = None
        if text_mask is not None or image_mask is not None:
            mask = torch.cat([as_mask(text, text_mask), as_mask(image, image_mask)], dim=1)
        encoded, weights = self.encoder(torch.cat([text, image], dim=1), mask, need_weights)
        out = {} if weights is None else {"attention": weights}
        return self.pool(encoded, mask), out
