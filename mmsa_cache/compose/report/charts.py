"""Data of the report's charts, in data units; the templates draw them."""

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
"""The learning curves drawn, by their key in ``metrics.jsonl``."""

COLOURS = 8
"""Colours for classes in the template; more classes than that share them."""
_OWN_COLOUR = {"positive": 0, "neutral": 1, "negative": 2}
_STEPS = 5
"""At most so many between the ticks of an axis."""
_CELLS = 8
"""Values of an axis of the α/β surface; more of them are put into as many equal intervals."""


def class_colours(classes: Sequence[str]) -> dict[str, int]:
    """A colour number of the template for every class; the three sentiments keep their own."""
    own = {name: _OWN_COLOUR[name] for name in classes if name in _OWN_COLOUR}
    free = [n for n in range(COLOURS) if n not in own.values()]
    others = [name for name in classes if name not in own]
    return own | {name: free[i % len(free)] for i, name in enumerate(others)}


def ticks(values: Iterable[float]) -> list[float]:
    """Round axis ticks around values, a step of 1, 2 or 5 times a power of ten apart.

    Returns:
        Two or more ticks; the first is not above the lowest value, the last not below the highest.
    """
    found = list(values)
    low, high = min(found), max(found)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _STEPS))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= _STEPS:
            break
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def tick_labels(places: Sequence[float]) -> list[str]:
    """Ticks as text, all with the decimals that the step needs."""
    decimals = max(0, -math.floor(math.log10(places[1] - places[0]) + 1e-9))
    return [f"{place:.{decimals}f}".replace("-", "−") for place in places]


# --- values with intervals ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and, where there is one, its interval."""

    value: float
    interval: Interval | None = None
    series: int = 0
    """0: the first; 1: the second, drawn hollow."""


@dataclass(frozen=True, slots=True)
class Dots:
    """A dot for each value, its interval as a line; a row a name."""

    rows: list[tuple[str, list[Mark]]]
    ticks: list[float]
    """The first and the last are the ends of the axis."""

    @classmethod
    def of(cls, rows: Sequence[tuple[str, list[Mark]]], *also: float) -> Dots:
        """Rows on an axis that holds all their values and intervals, and ``also``."""
        held = list(also)
        for _, marks in rows:
            for mark in marks:
                interval = mark.interval
                held += [mark.value, *([interval.low, interval.high] if interval else [])]
        return cls(list(rows), ticks(held))


# --- learning curves ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of learning curves."""

    key: str
    title: str
    epochs: int
    """Right end of the epoch axis, which begins at 1."""
    epoch_ticks: list[int]
    ticks: list[float]
    """Ticks of the value axis; the first and the last are its ends."""
    lines: list[list[tuple[int, float]]]
    """(epoch, value) of every member."""
    mean: list[tuple[int, float]]
    """Mean over the members, for the epochs that every member reached."""
    marks: list[tuple[int, float]]
    """The epoch that each member kept."""


def learning_curves(
    history: Sequence[EpochRecord], members: Sequence[MemberRecord] = ()
) -> list[Chart]:
    """One chart for each of `CURVES`; none without history.

    Args:
        history: Every epoch of every member.
        members: Say which epoch each member kept.
    """
    if not history:
        return []
    epochs = max(record.epoch for record in history)
    kept = {(member.member, member.best_epoch) for member in members}
    charts = []
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
        charts.append(
            Chart(
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
    return charts


def _epoch_ticks(epochs: int) -> list[int]:
    """The first epoch and round ones after it."""
    if epochs <= 5:
        return list(range(1, max(epochs, 2) + 1))
    return [1, *(int(t) for t in ticks([0, epochs]) if 1 < t <= epochs and t == int(t))]


# --- a study ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class History:
    """The trials of a study in the order of their numbers."""

    complete: list[tuple[int, float]]
    """(number, score)"""
    pruned: list[tuple[int, float]]
    """(number, score when it was given up)"""
    failed: list[int]
    best: list[tuple[int, float]]
    """Corners of the line of the best score so far, of complete trials."""
    chosen: tuple[int, float] | None
    last: int
    """Right end of the axis of numbers, which begins at 0."""
    number_ticks: list[int]
    ticks: list[float]


def search_history(study: StudySnapshot) -> History | None:
    """The course of a search; None without a complete trial."""
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
    return History(
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
    """Where the mean lies between the lowest (0) and the highest (1) of all cells."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Mean scores over the weights of the adaptive loss."""

    alphas: list[str]
    """Columns."""
    betas: list[str]
    """Rows, from the highest."""
    cells: list[list[SurfaceCell | None]]
    """By row and column."""


def surface(points: Sequence[LossWeights]) -> Surface | None:
    """Means over the trials of equal or near weights; None without points."""
    if not points:
        return None
    alphas, of_alpha = _axis([point.alpha for point in points])
    betas, of_beta = _axis([point.beta for point in points])
    inside: dict[tuple[int, int], list[LossWeights]] = {}
    for point, alpha, beta in zip(points, of_alpha, of_beta, strict=True):
        inside.setdefault((beta, alpha), []).append(point)
    means = {
        place: sum(p.mean * p.trials for p in some) / sum(p.trials for p in some)
        for place, some in inside.items()
    }
    low, span = min(means.values()), max(means.values()) - min(means.values())

    def cell(beta: int, alpha: int) -> SurfaceCell | None:
        some, mean = inside.get((beta, alpha)), means.get((beta, alpha))
        if some is None or mean is None:
            return None
        share = (mean - low) / span if span else 1.0
        return SurfaceCell(mean, max(p.best for p in some), sum(p.trials for p in some), share)

    return Surface(
        alphas,
        betas[::-1],
        [
            [cell(beta, alpha) for alpha in range(len(alphas))]
            for beta in reversed(range(len(betas)))
        ],
    )


def _axis(values: Sequence[float]) -> tuple[list[str], list[int]]:
    """Names of an axis's cells from the lowest, and the cell of each value."""
    different = sorted(set(values))
    if len(different) <= _CELLS:
        return [f"{value:g}" for value in different], [different.index(v) for v in values]
    low, step = different[0], (different[-1] - different[0]) / _CELLS
    names = [f"≈{low + (k + 0.5) * step:.2f}" for k in range(_CELLS)]
    return names, [min(int((value - low) / step), _CELLS - 1) for value in values]
