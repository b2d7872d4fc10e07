"""The whole stage-two model: projections, one fusion, head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .classifier import Classifier, Inputs
from .fusion import Fusion, Pair
from .head import Head, LateHead
from .modality import modality_of
from .noise import ModalityDropout
from .parts import AXES, ModelPart, count, describe_pool, describe_projection
from .projection import Pool, Projection, Standardise, as_mask


class MultimodalClassifier(Classifier):
    """Projections, a fusion or a pooling, and a head. Built by `build_model`.

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
        self.beside = nn.ModuleDict(beside or {})
        self.modality_dropout = modality_dropout

    @property
    def inputs(self) -> list[str]:
        return list(self.projections)

    @property
    def projections(self) -> dict[str, Projection]:
        """The projections there are, by the name of the input that each reads."""
        named = {"text": self.text_projection, "image": self.image_projection, **self.beside}
        return {name: part for name, part in named.items() if isinstance(part, Projection)}

    @property
    def standardisations(self) -> dict[str, Standardise]:
        found = {name: part.standardise for name, part in self.projections.items()}
        return {name: part for name, part in found.items() if part is not None}

    def fuse(
        self, inputs: Inputs, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """See `Classifier.fuse`; the intermediates are those of the fusion, see `fusions`."""
        sequences: dict[str, tuple[Tensor, Tensor | None]] = {}
        if self.text_projection is not None:
            sequences["text"] = _project(
                "text", self.text_projection, inputs.text, inputs.text_mask
            )
        if self.image_projection is not None:
            sequences["image"] = _project(
                "image", self.image_projection, inputs.image, inputs.image_mask
            )
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
            if name not in inputs.vectors:
                raise ValueError(f"this model reads the {name}: it is required")
            vector = inputs.vectors[name]
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
        return torch.cat(parts, dim=1) if len(parts) > 1 else fused, there, out

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        logits: Tensor = self.head(fused, present)
        return logits

    def parts(self) -> list[ModelPart]:
        found = [describe_projection(name, part) for name, part in self.projections.items()]
        if self.fusion is not None:
            shape = ("batch", self.fusion.out_dim)
            found.append(ModelPart("fusion", self.fusion.computes, shape, count(self.fusion)))
        elif self.pool is not None:
            ((modality, part),) = ((n, p) for n, p in self.projections.items() if n in AXES)
            found.append(describe_pool(modality, self.pool, part.out_dim))
        return [*found, *self.head.parts()]


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
