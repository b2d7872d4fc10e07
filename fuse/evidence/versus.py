"""The recall of each class in two runs."""

from __future__ import annotations

from dataclasses import dataclass

from fuse.figures.confusion import class_recall
from fuse.figures.record import Interval
from fuse.figures.resampling import SEED, resampled_confusions

from .compare import RESAMPLES, Judged, mcnemar, share


@dataclass(frozen=True, slots=True)
class ClassRecall:
    """Recall of one class in two runs; intervals come from the same resamples of rows."""

    name: str
    rows: int
    values: tuple[float, float]
    intervals: tuple[Interval, Interval]
    difference: float
    """Second − first."""
    difference_interval: Interval


@dataclass(frozen=True, slots=True)
class Recalls:
    """Recalls of two runs on the rows that both judged."""

    runs: list[str]
    rows: int
    classes: list[ClassRecall]
    """Those that have rows."""
    accuracy: tuple[float, float]
    p_value: float
    """Of McNemar's exact test of equal accuracy."""


def recalls(first: Judged, second: Judged) -> Recalls:
    """Recall of each class in two runs.

    Raises:
        ModelError: The runs do not go together.
    """
    shared = share([first, second])
    drawn = class_recall(
        resampled_confusions(
            shared.labels, shared.predicted, len(shared.classes), resamples=RESAMPLES, seed=SEED
        )
    )
    right = shared.predicted == shared.labels
    found = []
    for code, name in enumerate(shared.classes):
        inside = shared.labels == code
        if not inside.any():
            continue
        one, two = (float(right[run][inside].mean()) for run in (0, 1))
        found.append(
            ClassRecall(
                name,
                int(inside.sum()),
                (one, two),
                (Interval.of(drawn[0, :, code]), Interval.of(drawn[1, :, code])),
                two - one,
                Interval.of(drawn[1, :, code] - drawn[0, :, code]),
            )
        )
    return Recalls(
        shared.runs,
        len(shared.guids),
        found,
        (float(right[0].mean()), float(right[1].mean())),
        mcnemar(right[0], right[1]).p_value,
    )
