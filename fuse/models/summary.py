"""Summary of a model, part by part."""

from __future__ import annotations

from .classifier import Classifier
from .parts import ModelPart


def summarise(model: Classifier) -> list[ModelPart]:
    """The parts of a model in the order of computation, and a row with the total of parameters.

    The model is not run and may be on the ``meta`` device.
    """
    parts = model.parts()
    logits = parts[-1].shape
    return [*parts, ModelPart("total", "logits", logits, sum(part.parameters for part in parts))]
