"""What every cell of an ablation is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fuse.figures.confusion import class_recall, confusion, confusion_scores
from fuse.figures.record import Interval
from fuse.figures.resampling import SEED, mask_absent_classes, resampled_confusions

from .ablation import Outcome
from .cells import Cell
from .records import CellFigures, Change, Figure
from .training_plan import Codes

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
    groups: Codes | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[CellFigures]:
    """What every cell is worth.

    A cell's figure is the mean of its members', the deviation is that of single members (None with
    one), and the interval spans the central 95 % of this mean over resamples of the judged rows,
    which are the same for every cell.

    Args:
        table: The rows; those whose settings were not trained are left out.
        outcome: Of `run`.
        labels: Class codes of the judged rows, (rows,).
        names: Class names.
        groups: Duplicate groups of the judged rows, (rows,), drawn together; default: each alone.
        resamples: Number of resamples.
        seed: Seed of the bootstrap.
    """
    settings = list(dict.fromkeys(c.setting for c in table if c.setting in outcome.predicted))
    found = {
        setting: _figures(labels, outcome.predicted[setting], len(names), groups, resamples, seed)
        for setting in settings
    }
    records = []
    for cell in table:
        if cell.setting not in found:
            continue
        own, first = found[cell.setting], found[settings[0]]
        trainings = outcome.trainings[cell.setting]
        records.append(
            CellFigures(
                labels=cell.labels,
                members=len(outcome.predicted[cell.setting]),
                recall={name: own[code].record() for code, name in enumerate(names)},
                change={key: own[key].less(first[key]) for key in CHANGES},
                parameters=trainings[0].parameters,
                seconds=round(sum(training.seconds for training in trainings), 2),
                setting=asdict(cell.setting),
                **{key: figure.record() for key, figure in own.items() if isinstance(key, str)},
            )
        )
    return records


@dataclass(frozen=True, slots=True)
class _Figure:
    """One figure of one cell."""

    values: NDArray[np.float64]
    """Of each member, (members,)"""
    samples: NDArray[np.float64]
    """Mean over members on each resample, (resamples,)"""

    def record(self) -> Figure:
        is_single = len(self.values) == 1
        interval = Interval.of(self.samples)
        return Figure(
            mean=float(self.values.mean()),
            deviation=None if is_single else float(self.values.std(ddof=1)),
            low=interval.low,
            high=interval.high,
        )

    def less(self, other: _Figure) -> Change:
        """Difference of the means, and its interval over resamples that both have in common."""
        interval = Interval.of(self.samples - other.samples)
        mean = float(self.values.mean() - other.values.mean())
        return Change(mean=mean, low=interval.low, high=interval.high)


def changes(
    first: Codes,
    second: Codes,
    labels: NDArray[np.int64],
    names: Sequence[str],
    groups: Codes,
) -> dict[str, Change]:
    """What a second cell's means are above a first one's, with paired intervals.

    Args:
        first: Class codes, (members, rows).
        second: The same of the other cell.
        labels: True class codes, (rows,).
        names: Class names.
        groups: Duplicate groups, (rows,), drawn together.

    Returns:
        A record of each of `CHANGES` and of every class's recall, as ``recall of NAME``.
    """
    one, two = (_figures(labels, p, len(names), groups, RESAMPLES, SEED) for p in (first, second))
    keys: dict[str, str | int] = {key: key for key in CHANGES}
    keys |= {f"recall of {name}": code for code, name in enumerate(names)}
    return {title: two[key].less(one[key]) for title, key in keys.items()}


def _figures(
    labels: NDArray[np.int64],
    predicted: Codes,
    classes: int,
    groups: Codes | None,
    resamples: int,
    seed: int,
) -> dict[str | int, _Figure]:
    """By name, and the recall of every class by its code."""
    whole = np.stack([confusion(labels, member, classes) for member in predicted])
    drawn = resampled_confusions(
        labels, predicted, classes, groups=groups, resamples=resamples, seed=seed
    )
    values, samples = confusion_scores(whole), confusion_scores(drawn)
    found: dict[str | int, _Figure] = {
        key: _Figure(values[key], samples[key].mean(axis=0)) for key in values
    }
    recalls = class_recall(whole)
    drawn_recalls = mask_absent_classes(class_recall(drawn), drawn).mean(axis=0)
    return found | {
        code: _Figure(recalls[:, code], drawn_recalls[:, code]) for code in range(classes)
    }
