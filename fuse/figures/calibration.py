"""Calibration of a classifier's probabilities; `fuse.training.calibration` fits it.

A temperature makes confidence honest (Guo et al. 2017, "On Calibration of Modern Neural Networks"),
offsets of the classes' log-probabilities make rare classes heard. Neither changes the model.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from .record import Number

Probabilities = NDArray[np.float64]

SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class Calibration:
    """p_c^(1/temperature) · exp(o_c), normalised."""

    temperature: Annotated[Number, Field(ge=1e-3, le=1e3)]
    """1 changes nothing; larger ones flatten."""
    offsets: tuple[Annotated[Number, Field(ge=-500, le=500)], ...]
    """One a class; zeros change nothing. Their powers of e are numbers still."""

    @classmethod
    def none(cls, classes: int) -> Calibration:
        """Changes nothing."""
        return cls(1.0, (0.0,) * classes)

    def __call__(self, probabilities: Probabilities) -> Probabilities:
        """Class probabilities, (rows, classes), to calibrated ones."""
        return shifted(tempered(probabilities, self.temperature), np.asarray(self.offsets))


def tempered(probabilities: Probabilities, temperature: float) -> Probabilities:
    """softmax(log p / temperature), (rows, classes)."""
    logits = np.log(np.maximum(probabilities, SMALLEST)) / temperature
    raised = np.exp(logits - logits.max(1, keepdims=True))
    total: Probabilities = raised.sum(1, keepdims=True)
    return raised / total


def shifted(probabilities: Probabilities, offsets: Probabilities) -> Probabilities:
    """p_c · exp(o_c), normalised to sum 1, (rows, classes)."""
    raised = probabilities * np.exp(offsets)
    total: Probabilities = raised.sum(1, keepdims=True)
    return raised / total
