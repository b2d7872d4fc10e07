"""The predictions of a run on its outer rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from .calibration import Decide


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of rows, in the order of the file."""

    guids: list[str]
    labels: NDArray[np.int64]
    """True class codes, (rows,)"""
    predicted: NDArray[np.int64]
    """Class codes, (rows,), by the run's decision rule"""
    probabilities: NDArray[np.float64]
    """(rows, classes)"""
    groups: NDArray[np.int64] | None = None
    """Numbers of the duplicate groups, (rows,); None in older runs"""
    decided: dict[Decide, NDArray[np.int64]] = field(default_factory=dict)
    """Class codes by each decision rule, (rows,); empty in older runs, which had one"""

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class, (rows,)."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]

    def only(self, mask: NDArray[np.bool_]) -> Predictions:
        """The rows of a mask, (rows,) bool."""
        return Predictions(
            list(compress(self.guids, mask.tolist())),
            self.labels[mask],
            self.predicted[mask],
            self.probabilities[mask],
            None if self.groups is None else self.groups[mask],
            {rule: codes[mask] for rule, codes in self.decided.items()},
        )
