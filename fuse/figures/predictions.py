"""The predictions of a run on its outer rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Predictions:
    """Rows in the order of the file."""

    guids: list[str]
    labels: NDArray[np.int64]
    """True class codes, (rows,)"""
    predicted: NDArray[np.int64]
    """Class codes, (rows,)"""
    probabilities: NDArray[np.float64]
    """(rows, classes)"""

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class, (rows,)."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]

    def only(self, chosen: NDArray[np.bool_]) -> Predictions:
        """The chosen rows, (rows,) bool."""
        return Predictions(
            [guid for guid, kept in zip(self.guids, chosen.tolist(), strict=True) if kept],
            self.labels[chosen],
            self.predicted[chosen],
            self.probabilities[chosen],
        )
