"""From flat settings to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmsa_cache.names import check_name

from .fusion import Fusion, FusionConfig
from .fusions import FUSIONS, build_fusion
from .head import Head, LateHead
from .modality import MODALITIES, modality_of
from .model import MultimodalClassifier
from .noise import ModalityDropout
from .projection import Pool, Projection


def build_model(
    *,
    fusion: str = "concat",
    modality: str = "both",
    text_in: int,
    image_in: int,
    beside: Mapping[str, int] | None = None,
    text_dim: int,
    image_dim: int | None = None,
    classes: int = 3,
    dropout: float = 0.25,
    input_dropout: float = 0.0,
    shared_input_dropout: bool = False,
    modality_dropout: float = 0.0,
    norm: str = "none",
    heads: int = 8,
    layers: int = 6,
    ffn: int = 2048,
    rank: int = 4,
    directions: str = "text",
    modality_embeddings: bool = False,
    pooling: str = "mean",
    text_pooling: str | None = None,
    image_pooling: str | None = None,
    head_dims: Sequence[int] = (1024, 256),
) -> MultimodalClassifier:
    """Builds a model from flat settings.

    Arguments that are not listed have the meaning of the `fuse.setting.Setting` field of that name.

    Args:
        fusion: name in `fusions.FUSIONS`; ignored with a single modality.
        text_in: features of a cached text token.
        image_in: features of a cached image patch.
        beside: features of further vectors of a sample, by name. Each has a projection of its own,
            whose output goes to the head beside the fused vector. A name is the modality, an
            underscore and any word, as in ``{"text_vector": 384}``. Vectors of a modality that the
            model does not read are ignored.
        image_dim: default: `text_dim`.
        classes: number of classes.
        modality_dropout: see `noise.ModalityDropout`; ignored with a single modality.
        norm: ``standardise`` (call `fit_standardisation` before training), ``layer`` or ``none``.
        text_pooling: pooling of text tokens; default: `pooling`.
        image_pooling: pooling of patches; default: `pooling`.
        head_dims: hidden sizes of the head.

    Raises:
        ValueError: an unknown name (the message lists the valid ones), a probability out of range,
            or sizes that the fusion cannot take (the message names the flag to change).
    """
    check_name("modality", modality, MODALITIES)
    check_name("fusion", fusion, FUSIONS)
    config = FusionConfig(
        text_dim=text_dim,
        image_dim=text_dim if image_dim is None else image_dim,
        heads=heads,
        layers=layers,
        ffn=ffn,
        rank=rank,
        dropout=dropout,
        directions=directions,
        modality_embeddings=modality_embeddings,
        text_pooling=pooling if text_pooling is None else text_pooling,
        image_pooling=pooling if image_pooling is None else image_pooling,
    )
    modalities = MODALITIES[1:] if modality == "both" else (modality,)

    def project(inputs: Mapping[str, tuple[str, int]]) -> dict[str, Projection]:
        return {
            name: Projection(features, config.dim(owner), norm, input_dropout, shared_input_dropout)
            for name, (owner, features) in inputs.items()
            if owner in modalities
        }

    # The order in which the parts are made is that in which they draw their initial weights.
    projections = project({"text": ("text", text_in), "image": ("image", image_in)})
    join = build_fusion(fusion, config) if modality == "both" else config.pool(modality)
    vectors = project({n: (modality_of(n), features) for n, features in (beside or {}).items()})
    return MultimodalClassifier(
        projections.get("text"),
        projections.get("image"),
        join,
        _build_head(join, config, modalities, vectors, classes, head_dims),
        vectors,
        ModalityDropout(modality_dropout) if modality == "both" else None,
    )


def _build_head(
    join: Fusion | Pool,
    config: FusionConfig,
    modalities: Sequence[str],
    vectors: Mapping[str, Projection],
    classes: int,
    dims: Sequence[int],
) -> Head | LateHead:
    """The head on the fused vector and the projected `vectors` beside it."""
    beside = [(modality_of(name), projection.out_dim) for name, projection in vectors.items()]
    if isinstance(join, Fusion) and join.separate_heads:
        fused = [(modality, config.dim(modality)) for modality in modalities]
        return LateHead([*fused, *beside], classes, config.dropout, dims)
    fused_dim = join.out_dim if isinstance(join, Fusion) else config.dim(modalities[0])
    in_dim = fused_dim + sum(length for _, length in beside)
    return Head(in_dim, classes, config.dropout, dims)
