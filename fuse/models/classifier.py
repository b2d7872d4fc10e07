"""The interface of a stage-two model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .parts import ModelPart
from .projection import Standardise

FUSED = "fused"
"""Name of the vector that replaces the inputs of a row that has been fused already."""


class Inputs(NamedTuple):
    """The inputs of a model for a batch; what the model does not read may be None or missing."""

    text: Tensor | None = None
    """``(batch, text_tokens, text_in)``, any floating dtype."""
    text_mask: Tensor | None = None
    """``(batch, text_tokens)``, boolean, True = real position; None: all are."""
    image: Tensor | None = None
    """``(batch, patches, image_in)``, any floating dtype."""
    image_mask: Tensor | None = None
    """``(batch, patches)``, boolean, True = real position; None: all are."""
    vectors: Mapping[str, Tensor] = MappingProxyType({})
    """Pooled vectors by name, ``(batch, features)`` each."""

    @classmethod
    def of(cls, sequences: Mapping[str, Tensor], vectors: Mapping[str, Tensor]) -> Inputs:
        """Inputs of sequences and masks by the names of the fields; missing ones are None."""
        text, text_mask, image, image_mask = map(sequences.get, cls._fields[:4])
        return cls(text, text_mask, image, image_mask, vectors)


class Classifier(nn.Module):
    """Classifies pairs of a text and an image, or one of them.

    A row whose mask has no real position in a modality lacks that modality.
    """

    landmarks = 0
    """Number of training rows that `fit_landmarks` takes."""
    trains_fusion = True
    """Whether training changes the result of `fuse`; if not, `fuse` accepts the vector `FUSED`."""

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that the model reads."""
        raise NotImplementedError

    @property
    def standardisations(self) -> dict[str, Standardise]:
        """Standardisations by name of the input."""
        raise NotImplementedError

    @torch.no_grad()
    def fit_standardisation(self, figures: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Sets the feature means and standard deviations of the training split.

        Args:
            figures: Mean and deviation over real positions, ``(features,)`` each, of each
                standardised input.

        Raises:
            ValueError: the model does not standardise its inputs, or figures of an input are
                missing or have the wrong shape.
        """
        if not self.standardisations:
            raise ValueError(
                "this model does not standardise its inputs: build it with norm='standardise'"
            )
        for name, standardise in self.standardisations.items():
            if name not in figures:
                raise ValueError(f"this model reads the {name}: its mean and std are required")
            standardise.fit(*figures[name])

    def fit_landmarks(self, vectors: Mapping[str, Tensor]) -> Tensor | None:
        """Sets the training rows that others are compared with, after `fit_standardisation`.

        Args:
            vectors: ``(landmarks, features)`` of each vector, as cached.

        Returns:
            The result of `fuse` for these rows; None if the model has no landmarks.
        """
        return None

    def fold(self) -> None:
        """Makes a trained model smaller without changing what it computes."""

    def fuse(
        self, inputs: Inputs, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Everything before the classifier. Rows are independent, so they may be fused in parts.

        Args:
            inputs: The rows.
            need_weights: add attention weights to the intermediates, if there are any; slower.

        Returns:
            The fused vector ``(batch, fused_dim)``; which modalities a row has, ``(batch, read)``,
            boolean, None without masks; the named intermediates.

        Raises:
            ValueError: an input that the model reads is missing or has the wrong shape.
        """
        raise NotImplementedError

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        """Logits ``(batch, classes)`` of the result of `fuse`."""
        raise NotImplementedError

    def parts(self) -> list[ModelPart]:
        """The parts in the order of computation, for `summary.summarise`."""
        raise NotImplementedError

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
        """Classifies a batch; see `Inputs` and `fuse` for the arguments.

        Returns:
            Logits ``(batch, classes)`` and the named intermediates: ``fused``
            ``(batch, fused_dim)`` and those of the model.
        """
        inputs = Inputs(text, text_mask, image, image_mask, vectors or {})
        fused, present, out = self.fuse(inputs, need_weights)
        return self.classify(fused, present), {"fused": fused, **out}
