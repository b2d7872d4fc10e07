"""The stage-two model: projections, a fusion and a head."""

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

    With both projections the head gets the fused vector. With one it gets the pooled projected
    sequence, and the other modality's inputs are ignored.

    A row whose mask has no real position in a modality lacks that modality: neither its features
    nor its vectors beside change anything, and the logits are finite. Without a mask all positions
    are real, which is faster.

    Args:
        text_projection: None for a model that reads no text.
        image_projection: None for a model that reads no image.
        join: the fusion (both modalities) or the pooling (one modality).
        head: the classifier.
        beside: projections, by name, of further vectors that go to the head beside the fused one;
            a name starts with the vector's modality.
        modality_dropout: drops modalities in training; None for a model of one modality.
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
        """Projections by name of the input."""
        named = {"text": self.text_projection, "image": self.image_projection, **self.beside}
        return {name: part for name, part in named.items() if isinstance(part, Projection)}

    @property
    def standardisations(self) -> dict[str, Standardise]:
        norms = {name: part.standardise for name, part in self.projections.items()}
        return {name: norm for name, norm in norms.items() if norm is not None}

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
        vectors = [
            self._project_vector(name, inputs.vectors.get(name), present) for name in self.beside
        ]
        stacked = torch.stack([*present.values()], dim=1) if present else None
        return torch.cat([fused, *vectors], dim=1) if vectors else fused, stacked, out

    def _project_vector(
        self, name: str, vector: Tensor | None, present: Mapping[str, Tensor]
    ) -> Tensor:
        """Checks and projects a vector beside; zero for rows without its modality."""
        projection = self.projections[name]
        if vector is None:
            raise ValueError(f"this model reads the {name}: it is required")
        if vector.ndim != 2 or vector.shape[1] != projection.in_dim:
            raise ValueError(
                f"{name}: expected (batch, {projection.in_dim}), received {tuple(vector.shape)}"
            )
        projected: Tensor = projection(vector)
        if present:
            absent = ~present[modality_of(name)].unsqueeze(1)
            projected = projected.masked_fill(absent, 0.0)
        return projected

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        logits: Tensor = self.head(fused, present)
        return logits

    def parts(self) -> list[ModelPart]:
        parts = [describe_projection(name, part) for name, part in self.projections.items()]
        if self.fusion is not None:
            shape = ("batch", self.fusion.out_dim)
            parts.append(ModelPart("fusion", self.fusion.computes, shape, count(self.fusion)))
        elif self.pool is not None:
            ((modality, part),) = ((n, p) for n, p in self.projections.items() if n in AXES)
            parts.append(describe_pool(modality, self.pool, part.out_dim))
        return [*parts, *self.head.parts()]


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
