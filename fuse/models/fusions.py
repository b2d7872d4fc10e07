"""The fusions of projected text and image by name.

t and v are the projected sequences, ``(batch, text_tokens, text_dim)`` and
``(batch, patches, image_dim)``; d is their length where they must agree (``image_dim = text_dim``).
[a ; b] concatenates vectors (in ``encoder``: sequences), ∘ multiplies element by element,
MHA(q, k, v) is multi-head attention (`attention.MultiHeadAttention`).

=====================  =========================================================  ================
name                   what it computes                                           out_dim
=====================  =========================================================  ================
``concat``             [pool(t) ; pool(v)]                                        text + image
``combine``            pool(t) + pool(v)                                          d
``attention``          pool(MHA(t, v, v))                                         d
  both directions      [pool(MHA(t, v, v)) ; pool(MHA(v, t, t))]                  2·d
``attention_concat``   [pool(t) ; pool(v) ; pool(MHA(t, P·v, P·v))],              2·text + image
                       P = Linear(image_dim, text_dim)
  both directions      [… ; pool(MHA(P·v, t, t))]                                 3·text + image
``attention_combine``  pool(t) + pool(v) + pool(MHA(t, v, v))                     d
  both directions      … + pool(MHA(v, t, t))                                     d
``encoder``            mean over TransformerEncoder([t ; v]);                     d
                       with modality embeddings of [t + e_t ; v + e_v]
``gated``              z∘tanh(W_v·pool(v)) + (1−z)∘tanh(W_t·pool(t)),             text
                       z = σ(W_z·[pool(v) ; pool(t)]) (Arevalo et al. 2017)
``lowrank``            Σ_i (W_i·[pool(t) ; 1])∘(V_i·[pool(v) ; 1]), i = 1…rank    text
                       (Liu et al. 2018)
``late``               [pool(t) ; pool(v)], a head for each part; the average     text + image
                       of the two heads' class probabilities (`head.LateHead`)
=====================  =========================================================  ================

pool(t) and pool(MHA(t, …)) pool text tokens as `text_pooling` says; pool(v) and pool(MHA(v, …))
pool patches as `image_pooling` says.

Named intermediates: ``text`` and ``image``, the pooled vectors, where the fusion uses them;
``attended`` and ``attended_image``, the pooled attention outputs of text tokens and patches;
``gate``, z of ``gated``; and on demand the attention weights, averaged over the heads:
``attention`` ``(batch, text_tokens, patches)``, ``attention_image``
``(batch, patches, text_tokens)``, in ``encoder`` ``attention``
``(batch, layers, positions, positions)`` with the text tokens before the patches. The weights of
padded queries have no meaning.

Everything is a sequence. The report's one-vector form (``level = "pooled"``) is a sequence of
length one for each modality, so a fusion does not depend on the level. With a single key the
softmax of the attention is 1 for any query, and the attention output is a linear map of the image.
That is why the report's "Attention" row equals its image-only row. The encoder has at least two
positions.

A modality without any real position pools to zeros, attends to nothing and is not attended to: the
features of a missing modality change nothing, and no row becomes NaN. ``attention`` needs both
modalities: without text or without image it is zero.
"""

from __future__ import annotations

from mmsa_cache.names import check_name

from .attention_fusions import (
    DIRECTIONS,
    Attention,
    AttentionCombine,
    AttentionConcat,
    EncoderFusion,
)
from .fusion import Fusion, FusionConfig
from .projection import POOLINGS
from .vector_fusions import Combine, Concat, Gated, Late, LowRank

FUSIONS: dict[str, type[Fusion]] = {
    "concat": Concat,
    "combine": Combine,
    "attention": Attention,
    "attention_concat": AttentionConcat,
    "attention_combine": AttentionCombine,
    "encoder": EncoderFusion,
    "gated": Gated,
    "lowrank": LowRank,
    "late": Late,
}
"""Every fusion by name; the first six are the report's."""

NEEDS_EQUAL_DIMS = frozenset(name for name, fusion in FUSIONS.items() if fusion.equal_dims)
NEEDS_HEADS = frozenset(name for name, fusion in FUSIONS.items() if fusion.has_heads)


def build_fusion(name: str, config: FusionConfig) -> Fusion:
    """Builds a fusion by name.

    Args:
        name: one of `FUSIONS`.
        config: sizes and options; those that do not concern the fusion are ignored.

    Raises:
        ValueError: unknown name, pooling or directions, or sizes that the fusion cannot take; the
            message names the setting to change.
    """
    check_name("fusion", name, FUSIONS)
    check_name("pooling", config.text_pooling, POOLINGS)
    check_name("pooling", config.image_pooling, POOLINGS)
    check_name("directions", config.directions, DIRECTIONS)
    for setting, value in (("layers", config.layers), ("rank", config.rank)):
        if value < 1:
            raise ValueError(f"{setting}: at least 1 is needed, received {value}")
    text_dim, image_dim, heads = config.text_dim, config.image_dim, config.heads
    problems = []
    if name in NEEDS_EQUAL_DIMS and image_dim != text_dim:
        problems.append(
            f"it needs image_dim equal to text_dim, received image_dim {image_dim} and "
            f"text_dim {text_dim}: set image_dim to {text_dim} or leave it out"
        )
    if name in NEEDS_HEADS and (heads < 1 or text_dim % heads):
        problems.append(
            f"its text_dim must be divisible by heads, received text_dim {text_dim} and "
            f"heads {heads}: change text_dim or heads"
        )
    if problems:
        raise ValueError(f"fusion {name!r}: " + "; ".join(problems))
    return FUSIONS[name](config)
