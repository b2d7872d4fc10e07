"""What the charts of a report show, in data units; the templates draw it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fuse.figures.record import Interval

from .run import CURVES

COLOURS = 8
"""Colours for classes in the template; more classes than that share them."""
_OWN_COLOUR = {"positive": 0, "neutral": 1, "negative": 2}
_CELLS = 8
"""Values of an axis of the α/β surface; more of them are put into as many equal intervals."""


def class_colours(classes: Sequence[str]) -> dict[str, int]:
    """A colour number of the template for every class; the three sentiments keep their own."""
    own = {name: _OWN_COLOUR[name] for name in classes if name in _OWN_COLOUR}
    free = [n for n in range(COLOURS) if n not in own.values()]
    others = [name for name in classes if name not in own]
    return own | {name: free[i % len(free)] for i, name in enumerate(others)}


def ticks(values: Iterable[float], most: int = 5) -> list[float]:
    """Round axis ticks around values, a step of 1, 2 or 5 times a power of ten apart.

    Args:
        values: What the axis has to hold.
        most: At most this many steps.

    Returns:
        Two or more ticks; the first is not above the lowest value, the last not below the highest.
    """
    found = list(values)
    low, high = min(found), max(found)
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
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
    history: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]] = ()
) -> list[Chart]:
    """One chart for each of `CURVES`; none without history.

    Args:
        history: Records with ``member``, ``epoch`` and the keys of `CURVES`.
        members: Records with ``member`` and ``best_epoch``, for the marks.
    """
    if not history:
        return []
    epochs = max(record["epoch"] for record in history)
    kept = {(member["member"], member["best_epoch"]) for member in members}
    charts = []
    for key, title in CURVES.items():
        lines: dict[int, dict[int, float]] = {}
        for record in history:
            lines.setdefault(record["member"], {})[record["epoch"]] = record[key]
        shared = sorted(set.intersection(*(set(line) for line in lines.values())))
        mean = [(e, sum(line[e] for line in lines.values()) / len(lines)) for e in shared]
        charts.append(
            Chart(
                key=key,
                title=title,
                epochs=max(epochs, 2),
                epoch_ticks=_epoch_ticks(epochs),
                ticks=ticks([record[key] for record in history]),
                lines=[sorted(line.items()) for line in lines.values()],
                mean=mean,
                marks=[(r["epoch"], r[key]) for r in history if (r["member"], r["epoch"]) in kept],
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


def search_history(study: Mapping[str, Any]) -> History | None:
    """The search of `fuse.search.snapshot.snapshot`; None without a complete trial."""
    trials = sorted(study["trials"], key=lambda trial: trial["number"])
    of = {
        state: [(t["number"], t["score"]) for t in trials if t["state"] == state]
        for state in ("complete", "pruned", "fail")
    }
    if not of["complete"]:
        return None
    best: list[tuple[int, float]] = []
    for number, score in of["complete"]:
        if not best or score > best[-1][1]:
            best += [(number, best[-1][1])] if best else []
            best.append((number, score))
    last = max(trials[-1]["number"], 1)
    best.append((last, best[-1][1]))
    return History(
        of["complete"],
        [(number, score) for number, score in of["pruned"] if score is not None],
        [number for number, _ in of["fail"]],
        best,
        next((pair for pair in of["complete"] if pair[0] == study["trial"]), None),
        last,
        [int(t) for t in ticks([0, last]) if t <= last and t == int(t)],
        ticks([score for _, score in of["complete"] + of["pruned"] if score is not None]),
    )


@dataclass(frozen=True, slots=True)
class Surface:
    """Mean scores over the weights of the adaptive loss."""

    alphas: list[str]
    """Columns."""
    betas: list[str]
    """Rows, from the highest."""
    cells: list[list[dict[str, Any] | None]]
    """By row and column: ``mean``, ``best``, ``trials``, and ``share``: where the mean lies
    between the lowest (0) and the highest (1) of all."""


def surface(points: Sequence[Mapping[str, Any]]) -> Surface | None:
    """The surface of `fuse.search.importance.alpha_beta`; None without points."""
    if not points:
        return None
    alphas, of_alpha = _axis([point["alpha"] for point in points])
    betas, of_beta = _axis([point["beta"] for point in points])
    found: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for point, alpha, beta in zip(points, of_alpha, of_beta, strict=True):
        found.setdefault((beta, alpha), []).append(point)
    means = {
        place: sum(p["mean"] * p["trials"] for p in part) / sum(p["trials"] for p in part)
        for place, part in found.items()
    }
    low, span = min(means.values()), max(means.values()) - min(means.values())
    return Surface(
        alphas,
        betas[::-1],
        [
            [
                None
                if (beta, alpha) not in found
                else {
                    "mean": means[beta, alpha],
                    "best": max(p["best"] for p in found[beta, alpha]),
                    "trials": sum(p["trials"] for p in found[beta, alpha]),
                    "share": (means[beta, alpha] - low) / span if span else 1.0,
                }
                for alpha in range(len(alphas))
            ]
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
