"""Calibration of a classifier's probabilities; `fuse.training.calibration` fits it.

A temperature corrects the confidence (Guo et al. 2017, "On Calibration of Modern Neural
Networks"), class biases correct the shares of the classes, and offsets favour rare classes in
decisions. The model stays unchanged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from .record import Number

Probabilities = NDArray[np.float64]
Shift = Annotated[Number, Field(ge=-500, le=500)]
"""Added to a log-probability; small enough that its exponential is finite."""
Decide = Literal["accuracy", "macro_f1"]
"""A decision rule, named after the metric that it favours; see `Calibration.decide`."""
DECIDE: tuple[Decide, ...] = get_args(Decide)

SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated probabilities p_c^(1/temperature) · exp(bias_c), normalised, and decisions."""

    temperature: Annotated[Number, Field(ge=1e-3, le=1e3)]
    """1 changes nothing; larger values flatten."""
    biases: tuple[Shift, ...]
    """One a class; zeros change nothing."""
    offsets: tuple[Shift, ...]
    """One a class, used by the rule ``macro_f1``; zeros make it the rule ``accuracy``."""

    @classmethod
    def none(cls, classes: int) -> Calibration:
        """A calibration that changes nothing."""
        return cls(1.0, (0.0,) * classes, (0.0,) * classes)

    @model_validator(mode="before")
    @classmethod
    def _of_older_runs(cls, content: Any) -> Any:
        """In older runs there are no biases, and the offsets change the probabilities."""
        if not isinstance(content, dict) or "biases" in content:
            return content
        offsets = content.get("offsets")
        zeros = [0.0] * len(offsets) if isinstance(offsets, list) else offsets
        return {**content, "biases": offsets, "offsets": zeros}

    @model_validator(mode="after")
    def _of_the_same_classes(self) -> Self:
        if len(self.biases) != len(self.offsets):
            raise ValueError(
                f"expected {len(self.biases)} entries in 'offsets' of the calibration, received "
                f"{len(self.offsets)}"
            )
        return self

    def __call__(self, probabilities: Probabilities) -> Probabilities:
        """Calibrates class probabilities, (rows, classes)."""
        return shift(temper(probabilities, self.temperature), np.asarray(self.biases))

    def decide(self, calibrated: Probabilities, rule: Decide) -> NDArray[np.int64]:
        """Class codes, (rows,).

        ``accuracy`` takes the most probable class, ``macro_f1`` that with the highest
        p_c · exp(offset_c).

        Args:
            calibrated: Calibrated class probabilities, (rows, classes).
            rule: The decision rule.
        """
        scores = calibrated * np.exp(self.offsets) if rule == "macro_f1" else calibrated
        return scores.argmax(1).astype(np.int64)


def temper(probabilities: Probabilities, temperature: float) -> Probabilities:
    """softmax(log p / temperature), (rows, classes)."""
    logits = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    raised = np.exp(logits - logits.max(1, keepdims=True))
    total: Probabilities = raised.sum(1, keepdims=True)
    return raised / total


def shift(probabilities: Probabilities, offsets: Probabilities) -> Probabilities:
    """p_c · exp(o_c), normalised to sum 1, (rows, classes)."""
    raised = probabilities * np.exp(offsets)
    total: Probabilities = raised.sum(1, keepdims=True)
    return raised / total
