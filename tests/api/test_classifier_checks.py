"""scikit-learn's own checks of `FusionClassifier`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from mmsa_cache import FusionClassifier

SMALL: dict[str, Any] = {"epochs": 3, "text_dim": 8, "image_dim": 8, "head": "", "folds": 2}
SMALL |= {"learning_rate": 0.03, "batch_size": 16, "loss": "ce", "dropout": 0.0}
SOLVED: dict[str, Any] = {"fusion": "kernel", "kernel": "linear", "loss": "ce"}
SOLVED |= {"optimiser": "lbfgs", "folds": 2}


def _unfit(_: FusionClassifier) -> dict[str, str]:
    reason = "two arguments are X and y, but of three the second is the half of the pictures"
    return {"check_fit_score_takes_y": reason}


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [FusionClassifier(**SOLVED, text_features=1)], expected_failed_checks=_unfit, xfail_strict=True
)
def test_scikit_learns_checks_hold(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


@pytest.mark.faults
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [FusionClassifier(**SMALL), FusionClassifier(**SMALL, text_features=1)],
    expected_failed_checks=_unfit,
    xfail_strict=True,
)
def test_scikit_learns_checks_hold_of_networks(
    estimator: Any, check: Callable[[Any], None]
) -> None:
    check(estimator)
