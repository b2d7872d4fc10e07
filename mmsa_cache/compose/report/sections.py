"""Figures and charts of the report's sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fuse.figures.intervals import intervals as score_intervals
from fuse.figures.predictions import Predictions
from fuse.figures.record import Interval

from .charts import Dots, Mark, search_history, surface
from .run import FIGURES, RunFiles

_CHARTED = ("accuracy", "macro_f1", "weighted_f1", "macro_precision", "macro_recall", "roc_auc")
"""Figures on one scale, of which more is better."""


@dataclass(frozen=True, slots=True)
class Against:
    """What the section on the loss shows."""

    said: str
    """What is compared, or why nothing is."""
    command: str = ""
    """What makes the missing run; empty where there is one."""
    recalls: dict[str, Any] | None = None
    """Of `fuse.evidence.versus.recalls`."""


def figure_intervals(
    predictions: Predictions, classes: int
) -> tuple[dict[str, Interval | None], list[dict[str, Interval | None]]]:
    """Of every figure, and of each class's F1 and average precision."""
    names = [str(code) for code in range(classes)]
    found = score_intervals(
        predictions.labels, predictions.probabilities, names, predicted=predictions.predicted
    )
    return {key: getattr(found, key) for key in FIGURES}, [
        {"f1": of.f1, "average_precision": of.average_precision} for of in found.per_class.values()
    ]


def figure_dots(outer: Mapping[str, Any], intervals: Mapping[str, Interval | None]) -> Dots:
    return Dots.of(
        [
            (FIGURES[key], [Mark(outer[key], intervals[key])])
            for key in _CHARTED
            if outer[key] is not None
        ]
    )


def score_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the table with and without calibration; empty without anything to compare."""
    rows = [
        {"rows_of": rows_of, "calibration": calibration, "score": metrics[key]}
        for key, rows_of, calibration in (
            ("outer", "outer", "with"),
            ("outer_uncalibrated", "outer", "without"),
            ("inner", "inner", "with"),
            ("inner_uncalibrated", "inner", "without"),
        )
        if metrics[key] is not None
    ]
    return rows if len(rows) > 1 else []


def distinct(run: RunFiles) -> dict[str, Any] | None:
    """The figures with and without outer rows that show a post which was learned from."""
    twins, predictions = run.metrics["duplicates"], run.predictions
    if twins is None:
        return None
    of = set(twins)
    kept = np.array([guid not in of for guid in predictions.guids])
    score = run.metrics["outer_without_duplicates"]
    intervals = None
    if score is not None and kept.any():
        part = Predictions(
            [guid for guid in predictions.guids if guid not in of],
            predictions.labels[kept],
            predictions.predicted[kept],
            predictions.probabilities[kept],
        )
        intervals = figure_intervals(part, len(run.config["classes"]))[0]
    return {"rows": len(twins), "score": score, "intervals": intervals}


def against_dots(against: Against | None) -> dict[str, Dots] | None:
    if against is None or against.recalls is None:
        return None
    classes = against.recalls["classes"]
    return {
        "values": Dots.of(
            [
                (
                    of["name"],
                    [Mark(of["values"][k], of["intervals"][k], series=k) for k in (0, 1)],
                )
                for of in classes
            ]
        ),
        "difference": Dots.of(
            [
                (of["name"], [Mark(of["difference"], of["difference_interval"], series=1)])
                for of in classes
            ],
            0.0,
        ),
    }


def study_section(study: Mapping[str, Any]) -> dict[str, Any]:
    fusions, parameters = study["by_fusion"], study["importance"]
    return {
        **study,
        "history": search_history(study),
        "count": {
            state: sum(trial["state"] == state for trial in study["trials"])
            for state in ("complete", "pruned", "fail")
        },
        "fusion_dots": Dots.of([(r["value"], [Mark(r["score"])]) for r in fusions])
        if fusions
        else None,
        "importance_dots": Dots.of(
            [
                (r["parameter"], [Mark(r["median"], Interval(r["low"], r["high"]))])
                for r in parameters
            ],
            0.0,
        )
        if parameters
        else None,
        "surface": surface(study["alpha_beta"]),
    }
