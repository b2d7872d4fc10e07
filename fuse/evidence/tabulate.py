"""What every cell of an ablation is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuse.figures.confusion import class_recall, confusion, figures
from fuse.figures.record import Interval
from fuse.figures.resampling import SEED, resampled_confusions

from .ablation import Outcome
from .cells import Cell
from .trainings import Codes

RESAMPLES = 2000
"""Bootstrap resamples behind every interval of a table."""
CHANGES = ("accuracy", "macro_f1")
"""Figures whose differences are given."""


def tabulate(
    table: Sequence[Cell],
    outcome: Outcome,
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[dict[str, Any]]:
    """What every cell is worth.

    A cell's figure is the mean of its members', the deviation is that of single members (None with
    one), and the interval spans the central 95 % of this mean over resamples of the judged rows,
    which are the same for every cell.

    Args:
        table: The rows; those whose settings were not trained are left out.
        outcome: Of `run`.
        labels: Class codes of the judged rows, (rows,).
        names: Class names.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.

    Returns:
        A record a cell: ``labels``, ``members``, the figures of `confusion.figures` and
        ``recall`` by class, each with ``mean``, ``deviation``, ``low`` and ``high``; ``change``:
        accuracy and macro-F1 less the first cell's, with the interval of the difference;
        ``parameters``, ``seconds`` of all its trainings and the ``setting``.
    """
    settings = list(dict.fromkeys(c.setting for c in table if c.setting in outcome.predicted))
    found = {
        setting: _figures(labels, outcome.predicted[setting], len(names), resamples, seed)
        for setting in settings
    }
    records = []
    for cell in table:
        if cell.setting not in found:
            continue
        own, first = found[cell.setting], found[settings[0]]
        trainings = outcome.records[cell.setting]
        records.append(
            {
                "labels": cell.labels,
                "members": len(outcome.predicted[cell.setting]),
                **{key: figure.record() for key, figure in own.items() if isinstance(key, str)},
                "recall": {name: own[code].record() for code, name in enumerate(names)},
                "change": {key: own[key].less(first[key]) for key in CHANGES},
                "parameters": trainings[0]["parameters"],
                "seconds": round(sum(record["seconds"] for record in trainings), 2),
                "setting": asdict(cell.setting),
            }
        )
    return records


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure of one cell."""

    values: NDArray[np.float64]
    """Of each member, (members,)"""
    samples: NDArray[np.float64]
    """Mean over members on each resample, (resamples,)"""

    def record(self) -> dict[str, float | None]:
        """Mean, deviation of single members and interval of the mean."""
        alone = len(self.values) == 1
        return {
            "mean": float(self.values.mean()),
            "deviation": None if alone else float(self.values.std(ddof=1)),
            **asdict(Interval.of(self.samples)),
        }

    def less(self, other: _Figure) -> dict[str, float]:
        """Difference of the means, and its interval over resamples that both have in common."""
        return {
            "mean": float(self.values.mean() - other.values.mean()),
            **asdict(Interval.of(self.samples - other.samples)),
        }


def changes(
    first: Codes,
    second: Codes,
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, dict[str, float]]:
    """What a second cell's means are above a first one's, with paired intervals.

    Args:
        first: Class codes, (members, rows).
        second: The same of the other cell.
        labels: True class codes, (rows,).
        names: Class names.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.

    Returns:
        ``mean``, ``low`` and ``high`` of each of `CHANGES` and of every class's recall, as
        ``recall of NAME``.
    """
    one, two = (_figures(labels, p, len(names), resamples, seed) for p in (first, second))
    keys: dict[str, str | int] = {key: key for key in CHANGES}
    keys |= {f"recall of {name}": code for code, name in enumerate(names)}
    return {title: two[key].less(one[key]) for title, key in keys.items()}


def _figures(
    labels: NDArray[np.int64], predicted: Codes, classes: int, resamples: int, seed: int
) -> dict[str | int, _Figure]:
    """By name, and the recall of every class by its code."""
    whole = np.stack([confusion(labels, member, classes) for member in predicted])
    drawn = resampled_confusions(labels, predicted, classes, resamples=resamples, seed=seed)
    values, samples = figures(whole), figures(drawn)
    found: dict[str | int, _Figure] = {
        key: _Figure(values[key], samples[key].mean(axis=0)) for key in values
    }
    recalls, drawn_recalls = class_recall(whole), class_recall(drawn).mean(axis=0)
    return found | {
        code: _Figure(recalls[:, code], drawn_recalls[:, code]) for code in range(classes)
    }
