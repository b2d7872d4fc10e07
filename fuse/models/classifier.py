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
"""Name of the vector that stands for a row's inputs where they were fused beforehand."""


class Inputs(NamedTuple):
    """A batch as a model takes it; what the model does not read may be None or left out."""

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
        """Sequences and masks by the names of the fields; those left out are None."""
        text, text_mask, image, image_mask = map(sequences.get, cls._fields[:4])
        return cls(text, text_mask, image, image_mask, vectors)


class Classifier(nn.Module):
    """Classifies a pair of an image and a text, or one of them alone.

    A row whose mask has no real position in a modality lacks that modality.
    """

    landmarks = 0
    """Number of training rows that `fit_landmarks` takes."""
    trains_fusion = True
    """Whether training changes what `fuse` gives; where not, it takes the vector `FUSED` too."""

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs that it reads."""
        raise NotImplementedError

    @property
    def standardisations(self) -> dict[str, Standardise]:
        """Of the inputs that it standardises, by name."""
        raise NotImplementedError

    @torch.no_grad()
    def fit_standardisation(self, figures: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Sets the feature means and standard deviations of the training split.

        Args:
            figures: Means and deviations, ``(features,)`` each and over real positions, of every
                input that is standardised.

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
        """Takes training rows to compare with, after `fit_standardisation`.

        Args:
            vectors: ``(landmarks, features)`` of every vector, as cached.

        Returns:
            What `fuse` gives of these rows; None of a model that takes none.
        """
        return None

    def fold(self) -> None:
        """Makes a trained model smaller; what it computes stays the same."""

    def fuse(
        self, inputs: Inputs, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Everything before the classifier, row by row: rows may be fused in parts and joined.

        Args:
            inputs: The rows.
            need_weights: put attention weights into the intermediates, if there are any; slower.

        Returns:
            The fused vector ``(batch, fused_dim)``; which modalities a row has, ``(batch, read)``,
            boolean, None where no mask says that one is missing; the named intermediates.

        Raises:
            ValueError: an input that the model reads is missing or has the wrong shape.
        """
        raise NotImplementedError

    def classify(self, fused: Tensor, present: Tensor | None) -> Tensor:
        """Logits ``(batch, classes)`` of what `fuse` gave."""
        raise NotImplementedError

    def parts(self) -> list[ModelPart]:
        """The parts in the order of their work, for `summary.summarise`."""
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
        """Classifies; arguments are those of `Inputs` and `fuse`.

        Returns:
            Logits ``(batch, classes)`` and the named intermediates: ``fused``
            ``(batch, fused_dim)`` and those of the model.
        """
        inputs = Inputs(text, text_mask, image, image_mask, vectors or {})
        fused, present, out = self.fuse(inputs, need_weights)
        return self.classify(fused, present), {"fused": fused, **out}
