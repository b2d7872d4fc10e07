"""What a built model consists of, part by part."""

from __future__ import annotations

from .classifier import Classifier
from .parts import ModelPart


def summarise(model: Classifier) -> list[ModelPart]:
    """The parts of a model in the order of their work, and the total.

    The numbers of parameters add up to the last row's. Nothing is run, so a model on the ``meta``
    device will do.
    """
    parts = model.parts()
    logits = parts[-1].shape
    return [*parts, ModelPart("total", "logits", logits, sum(part.parameters for part in parts))]
