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

    Args not listed are those of `fuse.setting.Setting` of the same name.

    Args:
        fusion: one of `fusions.FUSIONS`; not used with a single modality.
        text_in: features of a text token in the cache.
        image_in: features of an image patch in the cache.
        beside: features of further vectors of a sample that go to the head beside the fused one,
            each through a projection of its own, by name: modality, underscore, any word, as in
            ``{"text_vector": 384, "image_vector": 192}``; those of a modality that the model does
            not read are left out.
        image_dim: None means `text_dim`.
        classes: number of classes.
        modality_dropout: see `noise.ModalityDropout`; not used with a single modality.
        norm: ``standardise`` (call `fit_standardisation` before training), ``layer`` or ``none``.
        text_pooling: pooling over text tokens; None means `pooling`.
        image_pooling: pooling over patches; None means `pooling`.
        head_dims: hidden sizes of the head.

    Raises:
        ValueError: an unknown name (the message lists the valid ones), a probability out of range,
            or sizes that the fusion cannot take (the message names the flag to change).
    """
    check_name("modality", modality, MODALITIES)
    check_name("fusion", fusion, FUSIONS)
    text_pooling = pooling if text_pooling is None else text_pooling
    image_pooling = pooling if image_pooling is None else image_pooling
    dims = {"text": text_dim, "image": text_dim if image_dim is None else image_dim}
    read = list(dims) if modality == "both" else [modality]

    def project(owner: str, features: int) -> Projection:
        return Projection(features, dims[owner], norm, input_dropout, shared_input_dropout)

    text_projection = project("text", text_in) if "text" in read else None
    image_projection = project("image", image_in) if "image" in read else None
    join: Fusion | Pool
    if modality == "both":
        config = FusionConfig(
            text_dim=dims["text"],
            image_dim=dims["image"],
            heads=heads,
            layers=layers,
            ffn=ffn,
            rank=rank,
            dropout=dropout,
            directions=directions,
            modality_embeddings=modality_embeddings,
            text_pooling=text_pooling,
            image_pooling=image_pooling,
        )
        join = build_fusion(fusion, config)
        fused_dim = join.out_dim
    else:
        fused_dim = dims[modality]
        join = Pool(text_pooling if modality == "text" else image_pooling, fused_dim)
    owners = {name: modality_of(name) for name in beside or {}}
    vectors = {
        name: project(owners[name], features)
        for name, features in (beside or {}).items()
        if owners[name] in read
    }
    besides = [(owners[name], projection.out_dim) for name, projection in vectors.items()]
    head: Head | LateHead
    if isinstance(join, Fusion) and join.separate_heads:
        head = LateHead([*dims.items(), *besides], classes, dropout, head_dims)
    else:
        in_dim = fused_dim + sum(length for _, length in besides)
        head = Head(in_dim, classes, dropout, head_dims)
    return MultimodalClassifier(
        text_projection,
        image_projection,
        join,
        head,
        vectors,
        ModalityDropout(modality_dropout) if modality == "both" else None,
    )
