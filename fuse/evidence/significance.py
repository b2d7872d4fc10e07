"""Significance tests: McNemar's test, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from .comparison import McNemar


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Tests exactly whether two runs are right equally often (McNemar 1947).

    If they are, each row that only one of them gets right belongs to either with probability ½: a
    two-sided binomial test.

    Args:
        first_right: Whether the first run is right, (rows,).
        second_right: The same of the second run.

    Returns:
        The p-value is 1 if there are no such rows.
    """
    first = int((first_right & ~second_right).sum())
    second = int((second_right & ~first_right).sum())
    p_value = float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return McNemar(only_first_right=first, only_second_right=second, p_value=p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm 1979, "A Simple Sequentially Rejective Multiple Test
    Procedure").

    The k-th smallest of m is multiplied by m − k + 1; none is below a smaller one's or above 1.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    raised = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return corrected.tolist()
