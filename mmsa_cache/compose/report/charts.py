"""Data of the report's charts, in data units; templates draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fuse.figures.record import Interval
from fuse.figures.records import EpochRecord, MemberRecord
from fuse.figures.study import LossWeights, StudySnapshot

CURVES: dict[str, str] = {
    "loss": "Training loss",
    "macro_f1": "Macro F1, stopping rows",
    "accuracy": "Accuracy, stopping rows",
}
"""Titles of the learning curves, by their key in ``metrics.jsonl``."""

COLOURS = 8
"""Class colours in the style sheet; more classes share them."""
_SENTIMENT_COLOURS = {"positive": 0, "neutral": 1, "negative": 2}
_MOST_STEPS = 5
"""Intervals between the ticks of an axis, at most."""
_MOST_CELLS = 8
"""Cells of an axis of the α/β surface; more values are binned."""


def class_colours(classes: Sequence[str]) -> dict[str, int]:
    """Colour number of each class; the three sentiments have fixed ones."""
    own = {name: _SENTIMENT_COLOURS[name] for name in classes if name in _SENTIMENT_COLOURS}
    free = [n for n in range(COLOURS) if n not in own.values()]
    others = [name for name in classes if name not in own]
    return own | {name: free[i % len(free)] for i, name in enumerate(others)}


def ticks(values: Iterable[float]) -> list[float]:
    """Round axis ticks around values; the step is 1, 2 or 5 times a power of ten.

    Returns:
        Two or more ticks; the first is not above the lowest value, the last not below the highest.
    """
    values = list(values)
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _MOST_STEPS))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= _MOST_STEPS:
            break
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Ticks as text, with the decimals that their step needs."""
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return [f"{tick:.{decimals}f}".replace("-", "−") for tick in ticks]


# --- values with intervals ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and its interval, if it has one."""

    value: float
    interval: Interval | None = None
    series: int = 0
    """0, or 1 (drawn hollow)."""


@dataclass(frozen=True, slots=True)
class DotChart:
    """Named rows of values, drawn as dots with their intervals as lines."""

    rows: list[tuple[str, list[Mark]]]
    ticks: list[float]
    """Ticks of the axis, from end to end."""

    @classmethod
    def of(cls, rows: Sequence[tuple[str, list[Mark]]], *included: float) -> DotChart:
        """A chart whose axis includes all values and intervals, and ``included``."""
        values = list(included)
        for _, marks in rows:
            for mark in marks:
                interval = mark.interval
                values += [mark.value, *([interval.low, interval.high] if interval else [])]
        return cls(list(rows), ticks(values))


# --- learning curves ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """A chart of one measure by epoch, a line for each member."""

    key: str
    title: str
    epochs: int
    """End of the epoch axis, which begins at 1."""
    epoch_ticks: list[int]
    ticks: list[float]
    """Ticks of the value axis, from end to end."""
    lines: list[list[tuple[int, float]]]
    """(epoch, value) of each member."""
    mean: list[tuple[int, float]]
    """Mean over the members, of the epochs that every member reached."""
    marks: list[tuple[int, float]]
    """(epoch, value) of each member's kept epoch."""


def learning_curves(
    history: Sequence[EpochRecord], members: Sequence[MemberRecord] = ()
) -> list[LearningCurve]:
    """A chart for each of `CURVES`; none without history.

    Args:
        history: All epochs of all members.
        members: Name the epoch that each member kept.
    """
    if not history:
        return []
    epochs = max(record.epoch for record in history)
    kept = {(member.member, member.best_epoch) for member in members}
    curves = []
    for key, title in CURVES.items():
        points = [
            (record.member, record.epoch, value)
            for record in history
            if (value := getattr(record, key)) is not None
        ]
        lines: dict[int, dict[int, float]] = {}
        for member, epoch, value in points:
            lines.setdefault(member, {})[epoch] = value
        shared = sorted(set.intersection(*(set(line) for line in lines.values())))
        mean = [(e, sum(line[e] for line in lines.values()) / len(lines)) for e in shared]
        curves.append(
            LearningCurve(
                key=key,
                title=title,
                epochs=max(epochs, 2),
                epoch_ticks=_epoch_ticks(epochs),
                ticks=ticks(value for _, _, value in points),
                lines=[sorted(line.items()) for line in lines.values()],
                mean=mean,
                marks=[
                    (epoch, value) for member, epoch, value in points if (member, epoch) in kept
                ],
            )
        )
    return curves


def _epoch_ticks(epochs: int) -> list[int]:
    """The first epoch, and round ones after it."""
    if epochs <= 5:
        return list(range(1, max(epochs, 2) + 1))
    return [1, *(int(t) for t in ticks([0, epochs]) if 1 < t <= epochs and t == int(t))]


# --- a study ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SearchHistory:
    """The trials of a study, by number."""

    complete: list[tuple[int, float]]
    """(number, score)"""
    pruned: list[tuple[int, float]]
    """(number, last score)"""
    failed: list[int]
    best: list[tuple[int, float]]
    """Corners of the line of the best score so far."""
    chosen: tuple[int, float] | None
    last: int
    """End of the axis of numbers, which begins at 0."""
    number_ticks: list[int]
    ticks: list[float]


def search_history(study: StudySnapshot) -> SearchHistory | None:
    """The history of a search; None without a complete trial."""
    trials = sorted(study.trials, key=lambda trial: trial.number)

    def scored(state: str) -> list[tuple[int, float]]:
        return [(t.number, t.score) for t in trials if t.state == state and t.score is not None]

    complete, pruned = scored("complete"), scored("pruned")
    if not complete:
        return None
    best: list[tuple[int, float]] = []
    for number, score in complete:
        if not best or score > best[-1][1]:
            best += [(number, best[-1][1])] if best else []
            best.append((number, score))
    last = max(trials[-1].number, 1)
    best.append((last, best[-1][1]))
    return SearchHistory(
        complete,
        pruned,
        [trial.number for trial in trials if trial.state == "fail"],
        best,
        next((pair for pair in complete if pair[0] == study.trial), None),
        last,
        [int(t) for t in ticks([0, last]) if t <= last and t == int(t)],
        ticks(score for _, score in complete + pruned),
    )


@dataclass(frozen=True, slots=True)
class SurfaceCell:
    """One cell of a surface."""

    mean: float
    best: float
    trials: int
    share: float
    """The mean, scaled from 0 (lowest cell) to 1 (highest cell)."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Mean scores by the weights of the adaptive loss."""

    alphas: list[str]
    """Labels of the columns."""
    betas: list[str]
    """Labels of the rows, from the highest."""
    cells: list[list[SurfaceCell | None]]
    """By row and column."""


def surface(points: Sequence[LossWeights]) -> Surface | None:
    """Means over the trials with equal or close weights; None without points."""
    if not points:
        return None
    alphas, columns = _axis([point.alpha for point in points])
    betas, rows = _axis([point.beta for point in points])
    by_cell: dict[tuple[int, int], list[LossWeights]] = {}
    for point, row, column in zip(points, rows, columns, strict=True):
        by_cell.setdefault((row, column), []).append(point)
    means = {
        cell: sum(p.mean * p.trials for p in group) / sum(p.trials for p in group)
        for cell, group in by_cell.items()
    }
    low, span = min(means.values()), max(means.values()) - min(means.values())

    def surface_cell(row: int, column: int) -> SurfaceCell | None:
        group = by_cell.get((row, column))
        if group is None:
            return None
        mean = means[row, column]
        share = (mean - low) / span if span else 1.0
        return SurfaceCell(mean, max(p.best for p in group), sum(p.trials for p in group), share)

    return Surface(
        alphas,
        betas[::-1],
        [
            [surface_cell(row, column) for column in range(len(alphas))]
            for row in reversed(range(len(betas)))
        ],
    )


def _axis(values: Sequence[float]) -> tuple[list[str], list[int]]:
    """Labels of an axis's cells from the lowest, and the cell index of each value."""
    distinct = sorted(set(values))
    if len(distinct) <= _MOST_CELLS:
        return [f"{value:g}" for value in distinct], [distinct.index(v) for v in values]
    low, step = distinct[0], (distinct[-1] - distinct[0]) / _MOST_CELLS
    labels = [f"≈{low + (k + 0.5) * step:.2f}" for k in range(_MOST_CELLS)]
    return labels, [min(int((value - low) / step), _MOST_CELLS - 1) for value in values]
