"""What another loss does to the recall of each class: two runs that differ in nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fuse.figures.confusion import class_recall
from fuse.figures.record import Interval
from fuse.figures.resampling import SEED, resampled_confusions

from .compare import RESAMPLES, Judged, mcnemar, share

LOSS_FIELDS = frozenset(
    {
        "loss",
        "alpha",
        "beta",
        "statistics",
        "margin",
        "gamma",
        "label_smoothing",
        "tau",
        "balance",
    }
)
"""Fields of a setting that only say what is minimised."""
_GROUP = ("outer", "folds", "seeds", "averaged", "refit", "seed", "origin")


def losses(config: Mapping[str, Any]) -> list[str]:
    """Name of the loss of each setting of a run."""
    return [str(setting.get("loss")) for setting in _settings(config)]


def other_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Names of what two runs' ``config.json`` differ in besides the loss."""
    found = [key for key in _GROUP if first.get(key) != second.get(key)]
    one, two = _settings(first), _settings(second)
    if len(one) != len(two):
        return [*found, "number of settings"]
    fields = {
        key
        for a, b in zip(one, two, strict=True)
        for key in (a.keys() | b.keys()) - LOSS_FIELDS
        if a.get(key) != b.get(key)
    }
    return [*found, *sorted(fields)]


def _settings(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [model["setting"] for model in config["models"]]


def is_rival(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the other run shows what the loss does: cross-entropy here and another loss there,
    or the other way round, and nothing else that differs."""
    pairs = list(zip(losses(own), losses(other), strict=False))
    told = [(a == "ce") != (b == "ce") for a, b in pairs if a != b]
    return bool(told) and all(told) and not other_differences(own, other)


def recalls(first: Judged, second: Judged) -> dict[str, Any]:
    """Recall of each class in two runs on the rows that both judged.

    Returns:
        ``runs``: names; ``rows``; ``classes``: a record each with ``name``, ``rows``, ``values``
        and ``intervals`` of both runs and ``difference`` (second − first) with
        ``difference_interval``, all from the same resamples of rows; ``accuracy`` of both;
        ``p_value`` of McNemar's exact test of equal accuracy.

    Raises:
        ModelError: The runs do not go together.
    """
    shared = share([first, second])
    count = len(shared.classes)
    drawn = class_recall(
        resampled_confusions(shared.labels, shared.predicted, count, resamples=RESAMPLES, seed=SEED)
    )
    right = shared.predicted == shared.labels
    records = []
    for code, name in enumerate(shared.classes):
        inside = shared.labels == code
        if not inside.any():
            continue
        values = [float(right[run][inside].mean()) for run in (0, 1)]
        records.append(
            {
                "name": name,
                "rows": int(inside.sum()),
                "values": values,
                "intervals": [Interval.of(drawn[run, :, code]) for run in (0, 1)],
                "difference": values[1] - values[0],
                "difference_interval": Interval.of(drawn[1, :, code] - drawn[0, :, code]),
            }
        )
    return {
        "runs": shared.runs,
        "rows": len(shared.guids),
        "classes": records,
        "accuracy": [float(np.mean(row)) for row in right],
        "p_value": mcnemar(right[0], right[1])["p_value"],
    }
