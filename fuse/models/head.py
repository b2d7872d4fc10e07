"""The classifiers on top of the fused vector, called as ``head(fused, present)``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .linear import Linear
from .noise import Dropout
from .parts import ModelPart, count
from .stacked_layers import BatchNorm


class Head(nn.Module):
    """(Linear → BatchNorm → LeakyReLU → Dropout) for every hidden size, then Linear to the classes.

    Batch normalisation needs at least two rows in training mode; PyTorch raises otherwise.

    Args:
        in_dim: length of the fused vector.
        classes: number of classes.
        dropout: probability after each hidden layer.
        dims: hidden sizes (the report's are 1024 and 256); empty gives a linear classifier.
    """

    def __init__(self, in_dim: int, classes: int, dropout: float, dims: Sequence[int]) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for dim in dims:
            modules += [
                Linear(in_dim, dim),
                BatchNorm(dim),
                nn.LeakyReLU(),
                Dropout(dropout),
            ]
            in_dim = dim
        modules.append(Linear(in_dim, classes))
        self.layers = nn.Sequential(*modules)

    def forward(self, fused: Tensor, present: Tensor | None = None) -> Tensor:
        """``(batch, in_dim)`` to logits ``(batch, classes)``; `present` is ignored."""
        logits: Tensor = self.layers(fused)
        return logits

    def parts(self, name: str = "head") -> list[ModelPart]:
        """Its row of `summary.summarise`."""
        linear = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        outputs = [layer.out_features for layer in linear]
        sizes = " → ".join(str(size) for size in [linear[0].in_features, *outputs])
        between = ""
        if len(linear) > 1:
            p = next(layer.p for layer in self.layers if isinstance(layer, Dropout))
            between = f", batch norm, leaky ReLU, dropout {p:g} between"
        return [ModelPart(name, f"linear {sizes}{between}", ("batch", outputs[-1]), count(self))]


class LateHead(nn.Module):
    """A head for each modality; the average of their class probabilities.

    Its logits are log((p_text + p_image) / 2), or log p of the only modality of a row. A row with
    neither gets the average.

    Args:
        segments: modality (``text`` or ``image``) and length of each part of the fused vector, in
            order; a modality's head reads all its parts.
        classes: number of classes.
        dropout: probability after each hidden layer.
        dims: hidden sizes of each head.
    """

    def __init__(
        self,
        segments: Sequence[tuple[str, int]],
        classes: int,
        dropout: float,
        dims: Sequence[int],
    ) -> None:
        super().__init__()
        self.segments = tuple(segments)

        def head(modality: str) -> Head:
            in_dim = sum(length for owner, length in segments if owner == modality)
            return Head(in_dim, classes, dropout, dims)

        self.text = head("text")
        self.image = head("image")

    def forward(self, fused: Tensor, present: Tensor | None = None) -> Tensor:
        """Classifies.

        Args:
            fused: ``(batch, sum of the segments' lengths)``.
            present: ``(batch, 2)``, boolean, whether a row has a text and an image; None: all have
                both.

        Returns:
            Log-probabilities ``(batch, classes)``.
        """
        inputs: dict[str, list[Tensor]] = {"text": [], "image": []}
        segments = fused.split([length for _, length in self.segments], dim=1)
        for (modality, _), segment in zip(self.segments, segments, strict=True):
            inputs[modality].append(segment)
        text, image = (torch.cat(inputs[modality], dim=1) for modality in ("text", "image"))
        logits = torch.stack([self.text(text), self.image(image)], dim=1)
        log_p = logits.log_softmax(dim=2)
        if present is None:
            return log_p.logsumexp(dim=1) - math.log(2)
        used = present | ~present.any(dim=1, keepdim=True)
        log_p = log_p.masked_fill(~used.unsqueeze(2), -torch.inf)
        return log_p.logsumexp(dim=1) - used.sum(dim=1, keepdim=True).to(log_p.dtype).log()

    def parts(self) -> list[ModelPart]:
        """Its rows of `summary.summarise`."""
        heads = [*self.text.parts("head.text"), *self.image.parts("head.image")]
        average = "log of the average class probabilities of the modalities present"
        return [*heads, ModelPart("head", average, heads[0].shape, 0)]
