"""The whole stage-two model: projections, one fusion, head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .fusion import Fusion, FusionConfig, Pair
from .fusions import build_fusion, check_fusion_name
from .head import Head, LateHead
from .noise import ModalityDropout, NoiseTape
from .projection import Pool, Projection, as_mask

MODALITIES: tuple[str, ...] = ("both", "text", "image")


class MultimodalClassifier(nn.Module):
    """Classifies a pair of feature sequences, or one of them alone. Built by `build_model`.

    With both projections the fusion makes the vector for the head; with one, the pooled projected
    sequence goes to the head and the other modality's inputs are not looked at.

    A row whose mask has no real position in a modality lacks that modality: neither its features
    nor its vectors beside make a difference, and the logits are finite. Without a mask all
    positions are real, which saves work.

    Args:
        text_projection: None for a model that reads no text.
        image_projection: None for a model that reads no image.
        join: the fusion (both modalities) or the pooling (one modality).
        head: the classifier.
        tape: the noise of all the model's modules (see `noise`).
        beside: projections of further vectors, which go to the head beside the fused one, by name;
            a name starts with the vector's modality.
        modality_dropout: takes modalities away in training; None for a model of one modality.
    """

    def __init__(
        self,
        text_projection: Projection | None,
        image_projection: Projection | None,
        join: Fusion | Pool,
        head: Head | LateHead,
        tape: NoiseTape,
        beside: Mapping[str, Projection] | None = None,
        modality_dropout: ModalityDropout | None = None,
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
        self.tape = tape
        self.beside = nn.ModuleDict(beside or {})
        self.modality_dropout = modality_dropout

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that it reads."""
        return list(self.projections)

    @property
    def projections(self) -> dict[str, Projection]:
        """The projections there are, by the name of the input that each reads."""
        named = {"text": self.text_projection, "image": self.image_projection, **self.beside}
        return {name: part for name, part in named.items() if isinstance(part, Projection)}

    def forward(
        self,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
        vectors: Mapping[str, Tensor] | None = None,
        *,
        need_weights: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Classifies.

        Args:
            text: ``(batch, text_tokens, text_in)``, any floating dtype.
            text_mask: ``(batch, text_tokens)``, boolean, True = real position; None: all are.
            image: ``(batch, patches, image_in)``, any floating dtype.
            image_mask: ``(batch, patches)``, boolean, True = real position; None: all are.
            vectors: the vectors that go beside the fused one, ``(batch, features)`` each; those
                that the model does not read are not looked at.
            need_weights: put the attention weights into the second result (fusions that have
                them); slower.

        Returns:
            Logits ``(batch, classes)`` and the named intermediates: ``fused``
            ``(batch, fused_dim)`` and those of the fusion (see `fusions`).
            The inputs of a modality that the model does not read may be None.

        Raises:
            ValueError: an input that the model reads is missing or has the wrong shape.
        """
        fused, present, out = self.fuse(
            text, text_mask, image, image_mask, vectors, need_weights=need_weights
        )
        return self.classify(fused, present), {"fused": fused, **out}

    def fuse(
        self,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
        vectors: Mapping[str, Tensor] | None = None,
        *,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Everything before the head, row by row: rows may be fused in parts and joined.

        Args and errors are those of `forward`.

        Returns:
            The fused vector ``(batch, fused_dim)``; which modalities a row has, ``(batch, read)``,
            boolean, None where no mask says that one is missing; the intermediates of the fusion.
        """
        sequences: dict[str, tuple[Tensor, Tensor | None]] = {}
        if self.text_projection is not None:
            sequences["text"] = _project("text", self.text_projection, text, text_mask)
        if self.image_projection is not None:
            sequences["image"] = _project("image", self.image_projection, image, image_mask)
        if self.modality_dropout is not None and self.modality_dropout.active:
            (t, t_mask), (v, v_mask) = sequences["text"], sequences["image"]
            t_mask, v_mask = self.modality_dropout(as_mask(t, t_mask), as_mask(v, v_mask))
            sequences = {"text": (t, t_mask), "image": (v, v_mask)}
        present: dict[str, Tensor] = {}
        if any(mask is not None for _, mask in sequences.values()):
            present = {name: as_mask(x, mask).any(dim=1) for name, (x, mask) in sequences.items()}

        out: dict[str, Tensor] = {}
        if self.fusion is not None:
            fused, out = self.fusion(Pair(*sequences["text"], *sequences["image"]), need_weights)
        elif self.pool is not None:
            ((x, mask),) = sequences.values()
            fused = self.pool(x, mask)
        parts = [fused]
        for name, projection in self.beside.items():
            if vectors is None or name not in vectors:
                raise ValueError(f"this model reads the {name}: it is required")
            vector = vectors[name]
            if vector.ndim != 2 or vector.shape[1] != projection.in_dim:
                raise ValueError(
                    f"{name}: expected (batch, {projection.in_dim}), received {tuple(vector.shape)}"
                )
            projected = projection(vector)
            if present:
                absent = ~present[modality_of(name)].unsqueeze(1)
                projected = projected.masked_fill(absent, 0.0)
            parts.append(projected)
        there = torch.stack([*present.values()], dim=1) if present else None
        return torch.cat(parts, dim=1), there, out

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        """Logits ``(batch, classes)`` of what `fuse` gave."""
        logits: Tensor = self.head(fused, present)
        return logits

    @torch.no_grad()
    def fit_standardisation(self, figures: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Sets the feature means and standard deviations of the training split.

        Args:
            figures: Means and deviations, ``(features,)`` each and over real positions, of every
                input that `projections` names.

        Raises:
            ValueError: the model does not standardise its inputs, or figures of an input that it
                reads are missing or have the wrong shape.
        """
        for name, projection in self.projections.items():
            if projection.standardise is None:
                raise ValueError(
                    "this model does not standardise its inputs: build it with norm='standardise'"
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

    Args:
        fusion: one of `fusions.FUSIONS`; not used with a single modality.
        modality: ``both``, or ``text`` or ``image`` for the ablation.
        text_in: features of a text token in the cache.
        image_in: features of an image patch in the cache.
        beside: features of further vectors of a sample that go to the head beside the fused one,
            each through a projection of its own, by name: modality, underscore, any word, as in
            ``{"text_vector": 384, "image_vector": 192}``; those of a modality that the model does
            not read are left out.
        text_dim: features of a projected text token, and of a projected text vector beside.
        image_dim: the same of the image; None means `text_dim`.
        classes: number of classes.
        dropout: probability in the fusion and the head.
        input_dropout: probability with which an input feature is zeroed.
        shared_input_dropout: the positions of a row share one mask of `input_dropout`: a feature
            is zeroed in the whole row, and a step takes far less noise on sequences.
        modality_dropout: probability with which a row loses its text or its image in training
            (see `noise.ModalityDropout`); not used with a single modality.
        norm: ``standardise`` (call `fit_standardisation` before training), ``layer`` or ``none``.
        heads: attention heads.
        layers: layers of the ``encoder`` fusion.
        ffn: feed-forward units of the ``encoder`` fusion.
        rank: of the ``lowrank`` fusion.
        directions: of the three attention fusions: ``text`` (text queries patches) or ``both``.
        modality_embeddings: of the ``encoder`` fusion: a learned vector a modality.
        pooling: ``mean``, ``first`` or ``attention``.
        text_pooling: pooling over text tokens; None means `pooling`.
        image_pooling: pooling over patches; None means `pooling`.
        head_dims: hidden sizes of the head.

    Raises:
        ValueError: an unknown name (the message lists the valid ones), a probability out of range,
            or sizes that the fusion cannot take (the message names the flag to change).
    """
    if modality not in MODALITIES:
        raise ValueError(f"unknown modality {modality!r}; valid: {', '.join(MODALITIES)}")
    check_fusion_name(fusion)
    tape = NoiseTape()
    text_pooling = pooling if text_pooling is None else text_pooling
    image_pooling = pooling if image_pooling is None else image_pooling
    dims = {"text": text_dim, "image": text_dim if image_dim is None else image_dim}
    read = list(dims) if modality == "both" else [modality]

    def project(owner: str, features: int) -> Projection:
        return Projection(features, dims[owner], norm, input_dropout, shared_input_dropout, tape)

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
        join = build_fusion(fusion, config, tape)
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
        head = LateHead([*dims.items(), *besides], classes, dropout, head_dims, tape)
    else:
        in_dim = fused_dim + sum(length for _, length in besides)
        head = Head(in_dim, classes, dropout, head_dims, tape)
    return MultimodalClassifier(
        text_projection,
        image_projection,
        join,
        head,
        tape,
        vectors,
        ModalityDropout(modality_dropout, tape) if modality == "both" else None,
    )


def modality_of(name: str) -> str:
    """The modality that the name of a vector beside starts with."""
    for modality in MODALITIES[1:]:
        if name.startswith(f"{modality}_"):
            return modality
    raise ValueError(f"vector beside {name!r}: its name must start with text_ or image_")


def _project(
    name: str, projection: Projection, x: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Checks one modality's inputs and projects them: ``(batch, tokens, out_dim)`` and its mask."""
    if x is None:
        raise ValueError(f"this model reads the {name}: it is required")
    if x.ndim != 3 or x.shape[2] != projection.in_dim:
        raise ValueError(
            f"{name} features: expected (batch, tokens, {projection.in_dim}), "
            f"received {tuple(x.shape)}"
        )
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"{name}_mask: expected bool {tuple(x.shape[:2])}, "
            f"received {mask.dtype} {tuple(mask.shape)}"
        )
    return projection(x), mask
