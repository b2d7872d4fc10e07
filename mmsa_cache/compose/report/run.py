"""What the report shows of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fuse.figures.predictions import Predictions

FIGURES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "weighted_f1": "Weighted F1",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "roc_auc": "ROC-AUC",
    "neg_log_loss": "Log-loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error (ECE)",
}
"""The figures of a run, by their key in ``metrics.json``."""
CURVES = {
    "loss": "Training loss",
    "macro_f1": "Macro F1, stopping rows",
    "accuracy": "Accuracy, stopping rows",
}
"""The learning curves drawn, by their key in ``metrics.jsonl``."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Everything a run directory says."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    """``metrics.json`` with None (no members: an empty list) for what it leaves out."""
    predictions: Predictions
    history: list[dict[str, Any]]
    """Every epoch of every member."""
    env: dict[str, dict[str, Any]]
    """What it was made with: ``machine`` and ``packages``."""
    command: str
    studies: list[dict[str, Any]]
    """See `fuse.search.snapshot.snapshot`; none where the setting was given."""
