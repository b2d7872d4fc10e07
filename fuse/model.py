"""The whole stage-two model: projections, one fusion, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .fusions import Fusion, build_fusion, check_fusion_name
from .head import Head
from .projection import Pool, Projection

MODALITIES: tuple[str, ...] = ("both", "text", "image")


class MultimodalClassifier(nn.Module):
    """Classifies a pair of feature sequences, or one of them alone. Built by `build_model`.

    With both projections the fusion makes the vector for the head; with one, the pooled projected
    sequence goes to the head and the other modality's inputs are not looked at.

    Args:
        text_projection: None for a model that reads no text.
        image_projection: None for a model that reads no image.
        join: the fusion (both modalities) or the pooling (one modality).
        head: the classifier.
        text_beside: projection of the text's pooled vector, which goes to the head beside the
            fused one; None without.
        image_beside: the same of the image.
    """

    def __init__(
        self,
        text_projection: Projection | None,
        image_projection: Projection | None,
        join: Fusion | Pool,
        head: Head,
        text_beside: Projection | None = None,
        image_beside: Projection | None = None,
    ) -> None:
        super().__init__()
        both = text_projection is not None and image_projection is not None
        if (text_projection is None and image_projection is None) or both != isinstance(
            join, Fusion
        ):
            raise ValueError("two projections need a Fusion, one projection needs a Pool")
        self.text_projection = text_projection
        self.image_projection = image_projection
        self.fusion = join if isinstance(join, Fusion) else None
        self.pool = join if isinstance(join, Pool) else None
        self.head = head
        self.text_beside = text_beside
        self.image_beside = image_beside

    @property
    def projections(self) -> dict[str, Projection]:
        """The projections there are, by the name of the input that each reads."""
        named = {
            "text": self.text_projection,
            "image": self.image_projection,
            "text_vector": self.text_beside,
            "image_vector": self.image_beside,
        }
        return {name: projection for name, projection in named.items() if projection is not None}

    def forward(
        self,
        text: Tensor | None,
        text_mask: Tensor | None,
        image: Tensor | None,
        image_mask: Tensor | None,
        need_weights: bool = False,
        *,
        text_vector: Tensor | None = None,
        image_vector: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Classifies.

        Args:
            text: ``(batch, text_tokens, text_in)``, any floating dtype.
            text_mask: ``(batch, text_tokens)``, boolean, True = real position.
            image: ``(batch, patches, image_in)``, any floating dtype.
            image_mask: ``(batch, patches)``, boolean, True = real position.
            need_weights: put the attention weights into the second result (fusions that have
                them); slower.
            text_vector: ``(batch, text_vector_in)``, the pooled text, for a model with one beside.
            image_vector: ``(batch, image_vector_in)``, the pooled image.

        Returns:
            Logits ``(batch, classes)`` and the named intermediates: ``fused``
            ``(batch, fused_dim)`` and those of the fusion (see `fusions`).
            The inputs of a modality that the model does not read may be None.

        Raises:
            ValueError: an input that the model reads is missing or has the wrong shape.
        """
        out: dict[str, Tensor] = {}
        t = v = None
        if self.text_projection is not None:
            t, text_mask = _project("text", self.text_projection, text, text_mask)
        if self.image_projection is not None:
            v, image_mask = _project("image", self.image_projection, image, image_mask)
        if self.fusion is not None:
            fused, out = self.fusion(t, text_mask, v, image_mask, need_weights)
        elif self.pool is not None:
            fused = self.pool(t, text_mask) if t is not None else self.pool(v, image_mask)
        for name, projection, vector in (
            ("text_vector", self.text_beside, text_vector),
            ("image_vector", self.image_beside, image_vector),
        ):
            if projection is not None:
                if vector is None:
                    raise ValueError(f"this model reads the {name}: it is required")
                fused = torch.cat([fused, projection(vector)], dim=1)
        return self.head(fused), {"fused": fused, **out}

    @torch.no_grad()
    def fit_standardisation(self, figures: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Sets the feature means and standard deviations of the training split.

        Args:
            figures: Means and deviations, ``(features,)`` each and over real positions, of every
                input that `projections` names.

        Raises:
            ValueError: the model was built with ``standardise=False``, or figures of an input
                that it reads are missing or have the wrong shape.
        """
        for name, projection in self.projections.items():
            if projection.standardise is None:
                raise ValueError(
                    "this model does not standardise its inputs: build it with standardise=True"
                )
            if name not in figures:
                raise ValueError(f"this model reads the {name}: its mean and std are required")
            projection.standardise.fit(*figures[name])


def build_model(
    *,
    fusion: str = "concat",
    modality: str = "both",
    text_in: int,
    image_in: int,
    text_vector_in: int | None = None,
    image_vector_in: int | None = None,
    text_dim: int,
    image_dim: int | None = None,
    classes: int = 3,
    dropout: float = 0.25,
    input_dropout: float = 0.0,
    heads: int = 8,
    layers: int = 6,
    ffn: int = 2048,
    pooling: str = "mean",
    standardise: bool = False,
    beside: bool = False,
    head_dims: Sequence[int] = (1024, 256),
) -> MultimodalClassifier:
    """Builds a model from flat settings.

    Args:
        fusion: one of `fusions.FUSIONS`; not used with a single modality.
        modality: ``both``, or ``text`` or ``image`` for the ablation.
        text_in: features of a text token in the cache.
        image_in: features of an image patch in the cache.
        text_vector_in: features of the pooled text that goes beside; None means `text_in`.
        image_vector_in: features of the pooled image that goes beside; None means `image_in`.
        text_dim: features of a projected text token.
        image_dim: features of a projected image patch; None means `text_dim`.
        classes: number of classes.
        dropout: probability in the fusion and the head.
        input_dropout: probability with which an input feature is zeroed.
        heads: attention heads.
        layers: layers of the ``encoder`` fusion.
        ffn: feed-forward units of the ``encoder`` fusion.
        pooling: ``mean``, ``first`` or ``attention``.
        standardise: standardise the inputs; call `fit_standardisation` before training.
        beside: the pooled vectors of the encoders go to the head too, beside the fused vector,
            each through a projection of its own.
        head_dims: hidden sizes of the head.

    Raises:
        ValueError: an unknown name (the message lists the valid ones), or sizes that the fusion
            cannot take (the message names the flag to change).
    """
    if modality not in MODALITIES:
        raise ValueError(f"unknown modality {modality!r}; valid: {', '.join(MODALITIES)}")
    check_fusion_name(fusion)
    image_dim = text_dim if image_dim is None else image_dim
    text_projection = image_projection = None
    if modality != "image":
        text_projection = Projection(text_in, text_dim, input_dropout, standardise)
    if modality != "text":
        image_projection = Projection(image_in, image_dim, input_dropout, standardise)
    join: Fusion | Pool
    if modality == "both":
        join = build_fusion(
            fusion,
            text_dim=text_dim,
            image_dim=image_dim,
            heads=heads,
            layers=layers,
            ffn=ffn,
            dropout=dropout,
            pooling=pooling,
        )
        fused_dim = join.out_dim
    else:
        fused_dim = text_dim if modality == "text" else image_dim
        join = Pool(pooling, fused_dim)
    text_beside = image_beside = None
    if beside and text_projection is not None:
        vector_in = text_vector_in or text_in
        text_beside = Projection(vector_in, text_dim, input_dropout, standardise)
        fused_dim += text_dim
    if beside and image_projection is not None:
        image_beside = Projection(
            image_vector_in or image_in, image_dim, input_dropout, standardise
        )
        fused_dim += image_dim
    head = Head(fused_dim, classes, dropout, head_dims)
    return MultimodalClassifier(
        text_projection, image_projection, join, head, text_beside, image_beside
    )


def _project(
    name: str, projection: Projection, x: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Checks one modality's inputs and projects them: ``(batch, tokens, out_dim)`` and its mask."""
    if x is None or mask is None:
        raise ValueError(f"this model reads the {name}: {name} and {name}_mask are required")
    if x.ndim != 3 or x.shape[2] != projection.in_dim:
        raise ValueError(
            f"{name} features: expected (batch, tokens, {projection.in_dim}), "
            f"received {tuple(x.shape)}"
        )
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise ValueError(
            f"{name}_mask: expected bool {tuple(x.shape[:2])}, "
            f"received {mask.dtype} {tuple(mask.shape)}"
        )
    return projection(x), mask
