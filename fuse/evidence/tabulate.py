"""Metrics of every cell of an ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.confusion import Codes, class_recall, confusion, confusion_scores
from fuse.figures.record import Interval
from fuse.figures.resampling import SEED, mask_absent_classes, resampled_confusions

from .ablation import Outcome
from .cells import Cell
from .records import CellFigures, Change, Figure

RESAMPLES = 2000
"""Bootstrap resamples behind every interval of a table."""
CHANGES = ("accuracy", "macro_f1")
"""Metrics whose differences are computed."""


def tabulate(
    table: Sequence[Cell],
    outcome: Outcome,
    labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    groups: Codes | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[CellFigures]:
    """Computes the metrics of every cell.

    A cell's value is the mean over its members, the deviation is that of single members (None for
    one), and the interval covers the central 95 % of this mean over resamples of the judged rows,
    which are the same for every cell.

    Args:
        table: The cells; those whose settings were not trained are left out.
        outcome: Of `Ablation.run`.
        labels: Class codes of the judged rows, (rows,).
        names: Class names.
        groups: Duplicate groups of the judged rows, (rows,), resampled together; default: none.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.
    """
    settings = list(dict.fromkeys(c.setting for c in table if c.setting in outcome.predicted))
    figures = {
        setting: _figures(labels, outcome.predicted[setting], len(names), groups, resamples, seed)
        for setting in settings
    }
    records = []
    for cell in table:
        if cell.setting not in figures:
            continue
        own, first = figures[cell.setting], figures[settings[0]]
        trainings = outcome.trainings[cell.setting]
        records.append(
            CellFigures(
                labels=cell.labels,
                members=len(outcome.predicted[cell.setting]),
                recall={name: own[code].record() for code, name in enumerate(names)},
                change={key: own[key].minus(first[key]) for key in CHANGES},
                parameters=trainings[0].parameters,
                seconds=round(sum(training.seconds for training in trainings), 2),
                setting=asdict(cell.setting),
                **{key: figure.record() for key, figure in own.items() if isinstance(key, str)},
            )
        )
    return records


@dataclass(frozen=True, slots=True)
class _Figure:
    """One metric of one cell."""

    values: NDArray[np.float64]
    """Of each member, (members,)"""
    samples: NDArray[np.float64]
    """Mean over members of each resample, (resamples,)"""

    def record(self) -> Figure:
        is_single = len(self.values) == 1
        interval = Interval.of(self.samples)
        return Figure(
            mean=float(self.values.mean()),
            deviation=None if is_single else float(self.values.std(ddof=1)),
            low=interval.low,
            high=interval.high,
        )

    def minus(self, other: _Figure) -> Change:
        """Difference of the means, and its interval over the shared resamples."""
        interval = Interval.of(self.samples - other.samples)
        mean = float(self.values.mean() - other.values.mean())
        return Change(mean=mean, low=interval.low, high=interval.high)


def metric_changes(
    first: Codes,
    second: Codes,
    labels: NDArray[np.int64],
    names: Sequence[str],
    groups: Codes,
) -> dict[str, Change]:
    """Differences of a second cell's means from a first one's, with paired intervals.

    Args:
        first: Class codes, (members, rows).
        second: The same of the other cell.
        labels: True class codes, (rows,).
        names: Class names.
        groups: Duplicate groups, (rows,), resampled together.

    Returns:
        A record of each of `CHANGES` and of every class's recall, as ``recall of NAME``.
    """
    one, two = (_figures(labels, p, len(names), groups, RESAMPLES, SEED) for p in (first, second))
    keys: dict[str, str | int] = {key: key for key in CHANGES}
    keys |= {f"recall of {name}": code for code, name in enumerate(names)}
    return {title: two[key].minus(one[key]) for title, key in keys.items()}


def _figures(
    labels: NDArray[np.int64],
    predicted: Codes,
    classes: int,
    groups: Codes | None,
    resamples: int,
    seed: int,
) -> dict[str | int, _Figure]:
    """Metrics by name, and the recall of every class by its code."""
    whole = np.stack([confusion(labels, member, classes) for member in predicted])
    drawn = resampled_confusions(
        labels, predicted, classes, groups=groups, resamples=resamples, seed=seed
    )
    values, samples = confusion_scores(whole), confusion_scores(drawn)
    by_name: dict[str | int, _Figure] = {
        key: _Figure(values[key], samples[key].mean(axis=0)) for key in values
    }
    recalls = class_recall(whole)
    drawn_recalls = mask_absent_classes(class_recall(drawn), drawn).mean(axis=0)
    return by_name | {
        code: _Figure(recalls[:, code], drawn_recalls[:, code]) for code in range(classes)
    }
