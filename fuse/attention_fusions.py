"""Fusions with attention over the sequences; see `fusions` for the table of all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import EncoderStack, MultiHeadAttention
from .fusion import Fused, Fusion, Pair
from .noise import NoiseTape
from .projection import Pool

DIRECTIONS: tuple[str, ...] = ("text", "both")


class CrossAttention(nn.Module):
    """Text attends over image patches and, if wanted, the patches over the text; both pooled.

    pool(MHA(t, v, v)) over the text tokens and pool(MHA(v, t, t)) over the patches, each with
    weights of its own.

    Args:
        dim: features of a position, the same for both modalities; divisible by `heads`.
        heads: number of heads.
        dropout: probability with which an attention weight is zeroed in training.
        directions: ``text``: text tokens query; ``both``: patches query too.
        text_pooling: how what the text tokens found is pooled.
        image_pooling: how what the patches found is pooled.
        tape: the model's noise.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        directions: str,
        text_pooling: str,
        image_pooling: str,
        tape: NoiseTape,
    ) -> None:
        super().__init__()
        self.mha = MultiHeadAttention(dim, heads, dropout, tape)
        self.pool = Pool(text_pooling, dim)
        self.image_mha = self.image_pool = None
        if directions == "both":
            self.image_mha = MultiHeadAttention(dim, heads, dropout, tape)
            self.image_pool = Pool(image_pooling, dim)

    @property
    def formulas(self) -> list[str]:
        """What `forward` returns, in the symbols of `fusions`."""
        return ["pool(MHA(t, v, v))"] + ["pool(MHA(v, t, t))"] * (self.image_mha is not None)

    def forward(self, pair: Pair, need_weights: bool) -> tuple[list[Tensor], dict[str, Tensor]]:
        """A vector ``(batch, dim)`` for each direction, and the intermediates (see `fusions`)."""
        text, text_mask, image, image_mask = pair
        found, weights = self.mha(text, image, image_mask, need_weights)
        vectors = [self.pool(found, text_mask)]
        out = {"attended": vectors[0]}
        if weights is not None:
            out["attention"] = weights
        if self.image_mha is not None and self.image_pool is not None:
            found, weights = self.image_mha(image, text, text_mask, need_weights)
            vectors.append(self.image_pool(found, image_mask))
            out["attended_image"] = vectors[1]
            if weights is not None:
                out["attention_image"] = weights
        return vectors, out


class Attention(Fusion):
    """[pool(MHA(t, v, v))], followed by pool(MHA(v, t, t)) for both directions."""

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        directions: str,
        text_pooling: str,
        image_pooling: str,
        tape: NoiseTape,
    ) -> None:
        super().__init__()
        self.attention = CrossAttention(
            dim, heads, dropout, directions, text_pooling, image_pooling, tape
        )
        self.out_dim = dim * len(self.attention.formulas)
        formulas = self.attention.formulas
        self.computes = f"[{' ; '.join(formulas)}]" if len(formulas) > 1 else formulas[0]

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        """Fuses; see `Fusion.forward`."""
        vectors, out = self.attention(pair, need_weights)
        return torch.cat(vectors, dim=1), out


class AttentionConcat(Fusion):
    """[pool(t) ; pool(v) ; pool(MHA(t, P·v, P·v))] with P = Linear(image_dim, text_dim).

    For both directions pool(MHA(P·v, t, t)) follows.
    """

    def __init__(
        self,
        text_dim: int,
        image_dim: int,
        heads: int,
        dropout: float,
        directions: str,
        text_pooling: str,
        image_pooling: str,
        tape: NoiseTape,
    ) -> None:
        super().__init__()
        self.image_to_text = nn.Linear(image_dim, text_dim)
        self.attention = CrossAttention(
            text_dim, heads, dropout, directions, text_pooling, image_pooling, tape
        )
        self.text_pool = Pool(text_pooling, text_dim)
        self.image_pool = Pool(image_pooling, image_dim)
        formulas = [formula.replace("v", "P·v") for formula in self.attention.formulas]
        self.out_dim = text_dim + image_dim + text_dim * len(formulas)
        self.computes = f"[{' ; '.join(['pool(t)', 'pool(v)', *formulas])}]"

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        """Fuses; see `Fusion.forward`."""
        mapped = pair._replace(image=self.image_to_text(pair.image))
        vectors, out = self.attention(mapped, need_weights)
        t = self.text_pool(pair.text, pair.text_mask)
        v = self.image_pool(pair.image, pair.image_mask)
        return torch.cat([t, v, *vectors], dim=1), {"text": t, "image": v, **out}


class AttentionCombine(Fusion):
    """pool(t) + pool(v) + pool(MHA(t, v, v)), for both directions + pool(MHA(v, t, t))."""

    def __init__(
        self,
        dim: int,
        heads: int,
        dropout: float,
        directions: str,
        text_pooling: str,
        image_pooling: str,
        tape: NoiseTape,
    ) -> None:
        super().__init__()
        self.attention = CrossAttention(
            dim, heads, dropout, directions, text_pooling, image_pooling, tape
        )
        self.text_pool = Pool(text_pooling, dim)
        self.image_pool = Pool(image_pooling, dim)
        self.out_dim = dim
        self.computes = " + ".join(["pool(t)", "pool(v)", *self.attention.formulas])

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        """Fuses; see `Fusion.forward`."""
        vectors, out = self.attention(pair, need_weights)
        t = self.text_pool(pair.text, pair.text_mask)
        v = self.image_pool(pair.image, pair.image_mask)
        fused = t + v
        for vector in vectors:
            fused = fused + vector
        return fused, {"text": t, "image": v, **out}


class Encoder(Fusion):
    """Mean over the real positions of TransformerEncoder([t ; v]).

    Post-norm layers with ReLU, PyTorch's defaults, as in the report. No position embedding: the
    report has none. The result is always a mean; the poolings do not apply.

    Args:
        dim: features of a position; divisible by `heads`.
        heads: attention heads a layer.
        layers: number of layers.
        ffn: hidden units of a layer's feed-forward part.
        dropout: probability, used in attention, feed-forward and residual branches.
        modality_embeddings: add a learned vector to every text token and another to every patch,
            so that attention can tell them apart. They start at zero: as the report's model.
        tape: the model's noise.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        ffn: int,
        dropout: float,
        modality_embeddings: bool,
        tape: NoiseTape,
    ) -> None:
        super().__init__()
        self.out_dim = dim
        self.text_embedding = self.image_embedding = None
        if modality_embeddings:
            self.text_embedding = nn.Parameter(torch.zeros(dim))
            self.image_embedding = nn.Parameter(torch.zeros(dim))
        self.encoder = EncoderStack(layers, dim, heads, ffn, dropout, tape)
        self.pool = Pool("mean", dim)
        both = "[t + e_t ; v + e_v]" if modality_embeddings else "[t ; v]"
        self.computes = f"mean(TransformerEncoder({both})), {layers} layers"

    def forward(self, pair: Pair, need_weights: bool = False) -> Fused:
        """Fuses; see `Fusion.forward`."""
        text, text_mask, image, image_mask = pair
        if self.text_embedding is not None and self.image_embedding is not None:
            text, image = text + self.text_embedding, image + self.image_embedding
        mask = torch.cat([text_mask, image_mask], dim=1)
        encoded, weights = self.encoder(torch.cat([text, image], dim=1), mask, need_weights)
        out = {} if weights is None else {"attention": weights}
        return self.pool(encoded, mask), out
