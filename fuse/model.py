"""The whole stage-two model: projections, one fusion, head."""

from __future__ import annotations

from collections.abc import Sequence

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
    """

    def __init__(
        self,
        text_projection: Projection | None,
        image_projection: Projection | None,
        join: Fusion | Pool,
        head: Head,
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

    def forward(
        self,
        text: Tensor | None,
        text_mask: Tensor | None,
        image: Tensor | None,
        image_mask: Tensor | None,
        need_weights: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Classifies.

        Args:
            text: ``(batch, text_tokens, text_in)``, any floating dtype.
            text_mask: ``(batch, text_tokens)``, boolean, True = real position.
            image: ``(batch, patches, image_in)``, any floating dtype.
            image_mask: ``(batch, patches)``, boolean, True = real position.
            need_weights: put the attention weights into the second result (fusions that have
                them); slower.

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
        return self.head(fused), {"fused": fused, **out}

    @torch.no_grad()
    def fit_standardisation(
        self,
        text_mean: Tensor | None = None,
        text_std: Tensor | None = None,
        image_mean: Tensor | None = None,
        image_std: Tensor | None = None,
    ) -> None:
        """Sets the feature means and standard deviations of the training split.

        Args:
            text_mean: ``(text_in,)``, over real positions; None if the model reads no text.
            text_std: ``(text_in,)``.
            image_mean: ``(image_in,)``, over real positions; None if the model reads no image.
            image_std: ``(image_in,)``.

        Raises:
            ValueError: the model was built with ``standardise=False``, or figures of a modality
                that it reads are missing or have the wrong shape.
        """
        for name, projection, mean, std in (
            ("text", self.text_projection, text_mean, text_std),
            ("image", self.image_projection, image_mean, image_std),
        ):
            if projection is None:
                continue
            if projection.standardise is None:
                raise ValueError(
                    "this model does not standardise its inputs: build it with standardise=True"
                )
            if mean is None or std is None:
                raise ValueError(
                    f"this model reads the {name}: {name}_mean and {name}_std are required"
                )
            projection.standardise.fit(mean, std)


def build_model(
    *,
    fusion: str = "concat",
    modality: str = "both",
    text_in: int,
    image_in: int,
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
    head_dims: Sequence[int] = (1024, 256),
) -> MultimodalClassifier:
    """Builds a model from flat settings.

    Args:
        fusion: one of `fusions.FUSIONS`; not used with a single modality.
        modality: ``both``, or ``text`` or ``image`` for the ablation.
        text_in: features of a text token in the cache.
        image_in: features of an image patch in the cache.
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
    head = Head(fused_dim, classes, dropout, head_dims)
    return MultimodalClassifier(text_projection, image_projection, join, head)


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
