"""Labels of posts, as class codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from mmsa_cache.errors import DataError


def encode_labels(y: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Sorted classes, and the class code of each label, (posts,).

    Raises:
        ValueError: They are no labels of two or more classes.
    """
    if y is None:
        raise DataError("FusionClassifier requires y to be passed, but the target y is None.")
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    if not len(classes):
        raise DataError("y has no labels.")
    if len(classes) < 2:
        raise DataError(f"y has one class, {classes[0]}; two or more are expected.")
    return classes, codes
