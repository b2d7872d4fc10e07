"""Plots of a run and of a study: the report's charts as matplotlib axes.

Each function draws on ``ax``, by default on a new pyplot figure, and returns the axes. Sizes, fonts
and backgrounds come from ``rcParams``; colours are the report's unless a style sets its own
``axes.prop_cycle``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fuse.figures.record import LEVEL, Interval
from fuse.figures.records import EpochRecord, MemberRecord, ScoreIntervals, Scores
from fuse.figures.reliability import reliability_bins
from fuse.figures.study import LossWeights, ParameterImportance, StudySnapshot
from mmsa_cache.compose.report.charts import CURVES, learning_curves, search_history, surface
from mmsa_cache.errors import SettingsError, require_extra
from mmsa_cache.escaping import single_line
from mmsa_cache.names import unknown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fuse.figures.predictions import Predictions

Curve = Literal["loss", "macro_f1", "accuracy"]
ACCENT, SECOND = "#0067a5", "#b34700"
"""Colours of ``pages/shell.css`` on a light background."""
_DEEPEST = 0.45
"""Share of the accent in the darkest cell of a table, for readable text."""
_FAINT = 0.6
"""Opacity of secondary marks."""
_LONGEST = 24
"""Characters of a name."""


def plot_confusion(scores: Scores, ax: Axes | None = None) -> Axes:
    """Rows by true and predicted class; the shade is the share of the true class.

    Args:
        scores: Of the predictions.
        ax: Where to draw.
    """
    counts = np.array(scores.confusion)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    texts = [
        [f"{count}\n{share:.0%}" for count, share in zip(*row, strict=True)]
        for row in zip(counts, shares, strict=True)
    ]
    names = [*scores.per_class]
    ax = _cells(_axes(ax), shares, texts, names, names)
    ax.set(xlabel="predicted", ylabel="true", aspect="equal")
    return ax


def plot_classes(scores: Scores, intervals: ScoreIntervals, ax: Axes | None = None) -> Axes:
    """F1 of every class that has rows, with its interval.

    Args:
        scores: Of the predictions.
        intervals: Of the same predictions.
        ax: Where to draw.
    """
    rows = [
        (name, of.f1, intervals.per_class[name].f1)
        for name, of in scores.per_class.items()
        if of.support
    ]
    ax = _dots(_axes(ax), rows)
    ax.set(xlabel=f"F1, {LEVEL:.0%} interval")
    return ax


def plot_reliability(predictions: Predictions, ax: Axes | None = None) -> Axes:
    """Accuracy by confidence, with the number of rows in each bin.

    Args:
        predictions: Judged by the likeliest class, whatever the decision rule.
        ax: Where to draw.
    """
    correct = predictions.labels == predictions.probabilities.argmax(1)
    every_bin, error = reliability_bins(predictions.probabilities.max(1), correct)
    ax = _axes(ax)
    colour, _ = _colours()
    bins = [b for b in every_bin if b.rows]
    centres = [(b.low + b.high) / 2 for b in bins]
    accuracies = [b.accuracy for b in bins]
    ax.bar(centres, accuracies, bins[0].high - bins[0].low, color=colour, alpha=0.22)
    ax.axline((0, 0), (1, 1), color=_ink(ax), alpha=_FAINT, linestyle="dashed", linewidth=1)
    ax.plot([b.confidence for b in bins], accuracies, "o", color=colour, clip_on=False)
    for centre, b in zip(centres, bins, strict=True):
        ax.text(centre, 0.01, str(b.rows), ha="center", va="bottom", size="small")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=f"calibration error {error:.3f}")
    ax.set(xlabel="confidence (in the bars: rows)", ylabel="accuracy")
    return ax


def plot_curves(
    history: Sequence[EpochRecord],
    members: Sequence[MemberRecord] = (),
    ax: Axes | None = None,
    *,
    curve: Curve = "macro_f1",
) -> Axes:
    """A learning curve: thin lines are the members, the thick one is their mean.

    Args:
        history: Every epoch of every member.
        members: The epoch that each member kept is marked with a ring.
        ax: Where to draw.
        curve: The training loss, or a score of the rows that stop the training.

    Raises:
        SettingsError: There is no such curve.
    """
    if not isinstance(curve, str) or curve not in CURVES:
        raise unknown_name("There is no curve", curve, CURVES)
    chart = next((c for c in learning_curves(history, members) if c.key == curve), None)
    if chart is None:
        raise SettingsError("No member was watched from epoch to epoch on rows of its own.")
    ax = _axes(ax)
    colour, _ = _colours()
    for line in chart.lines if len(chart.lines) > 1 else ():
        ax.plot(*zip(*line, strict=True), color=_ink(ax), linewidth=0.8, alpha=_FAINT)
    ax.plot(*zip(*chart.mean, strict=True), color=colour, linewidth=2)
    if chart.marks:
        _rings(ax, chart.marks)
    ax.set(xlabel="epoch", ylabel=chart.title, xticks=chart.epoch_ticks)
    return ax


def plot_importance(rows: Sequence[ParameterImportance], ax: Axes | None = None) -> Axes:
    """Importance of each parameter of a study: median and 5–95 % interval.

    Args:
        rows: Of the parameters.
        ax: Where to draw.

    Raises:
        SettingsError: There are none.
    """
    if not rows:
        raise SettingsError(
            "The study does not say what matters.", "It takes ten complete trials: search more."
        )
    ax = _dots(
        _axes(ax), [(row.parameter, row.median, Interval(row.low, row.high)) for row in rows]
    )
    ax.set(xlabel="importance, 5–95 % of resampled trials", xlim=(0, None))
    return ax


def plot_history(study: StudySnapshot, ax: Axes | None = None) -> Axes:
    """Every trial of a study by number, and the best score so far.

    Args:
        study: A snapshot.
        ax: Where to draw.

    Raises:
        SettingsError: No trial is complete.
    """
    chart = search_history(study)
    if chart is None:
        raise SettingsError(f"The study {study.name!r} has no complete trial.", "Search more.")
    ax = _axes(ax)
    colour, second = _colours()
    ax.plot(*zip(*chart.complete, strict=True), "o", color=colour, alpha=0.55, label="complete")
    if chart.pruned:
        numbers, scores = zip(*chart.pruned, strict=True)
        ax.scatter(
            numbers, scores, facecolor="none", edgecolor=_ink(ax), alpha=_FAINT, label="pruned"
        )
    if chart.failed:
        zeros = [0.0] * len(chart.failed)
        foot = ax.get_xaxis_transform()
        ax.plot(chart.failed, zeros, "|", color=second, transform=foot, label="failed")
    ax.plot(*zip(*chart.best, strict=True), color=colour, label="best so far")
    if chart.chosen:
        _rings(ax, [chart.chosen], label=f"trial {chart.chosen[0]}")
    ax.set(xlabel="trial", ylabel=study.metric, xticks=chart.number_ticks)
    ax.legend()
    return ax


def plot_alpha_beta(points: Sequence[LossWeights], ax: Axes | None = None) -> Axes:
    """Mean score and number of trials by the weights of the adaptive loss.

    Args:
        points: Of complete trials.
        ax: Where to draw.

    Raises:
        SettingsError: There are none.
    """
    chart = surface(points)
    if chart is None:
        raise SettingsError("No complete trial has the adaptive loss.", "Search with loss acb.")
    shares = [[np.nan if cell is None else cell.share for cell in row] for row in chart.cells]
    texts = [
        ["" if cell is None else f"{cell.mean:.3f}\n{cell.trials}" for cell in row]
        for row in chart.cells
    ]
    ax = _cells(_axes(ax), np.array(shares), texts, chart.alphas, chart.betas)
    ax.set(xlabel="α (weight of the focal part)", ylabel="β", aspect="auto")
    return ax


def _axes(ax: Axes | None) -> Axes:
    """The given axes, or those of a new figure."""
    if ax is not None:
        return ax
    with require_extra("A plot", "plots"):
        from matplotlib import pyplot
    return pyplot.subplots(layout="constrained")[1]


def _colours() -> tuple[str, str]:
    """The first and the second colour."""
    from matplotlib import rcParams, rcParamsDefault

    cycle = rcParams["axes.prop_cycle"]
    if cycle == rcParamsDefault["axes.prop_cycle"]:
        return ACCENT, SECOND
    own = cycle.by_key().get("color", [ACCENT])
    return own[0], own[1 % len(own)]


def _ink(ax: Axes) -> Any:
    """The colour of the labels."""
    return ax.xaxis.label.get_color()


def _names(names: Sequence[str]) -> list[str]:
    """Names, cut where they are too long, without control characters."""
    return [
        name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in map(single_line, names)
    ]


def _dots(ax: Axes, rows: Sequence[tuple[str, float, Interval]]) -> Axes:
    """A dot for each value, its interval as a line; the first row on top."""
    colour, _ = _colours()
    heights = range(len(rows))
    ax.hlines(
        heights,
        [interval.low for _, _, interval in rows],
        [interval.high for _, _, interval in rows],
        color=colour,
        linewidth=2,
    )
    ax.plot([value for _, value, _ in rows], heights, "o", color=colour)
    ax.set_yticks(heights, _names([name for name, _, _ in rows]), parse_math=False)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return ax


def _rings(ax: Axes, points: Sequence[tuple[float, float]], label: str = "_") -> None:
    xs, ys = zip(*points, strict=True)
    ax.plot(xs, ys, "o", markersize=9, fillstyle="none", color=_ink(ax), label=label)


def _cells(
    ax: Axes,
    shares: np.ndarray,
    texts: Sequence[Sequence[str]],
    columns: Sequence[str],
    rows: Sequence[str],
) -> Axes:
    """A table of texts, each cell shaded by its share (0–1); NaN leaves it blank."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("mmsa", [ax.get_facecolor(), _colours()[0]])
    ax.imshow(shares, cmap=shades, vmin=0, vmax=1 / _DEEPEST)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            ax.text(column, row, text, ha="center", va="center")
    ax.set_xticks(range(len(columns)), _names(columns), parse_math=False)
    ax.set_yticks(range(len(rows)), _names(rows), parse_math=False)
    ax.grid(visible=False)
    return ax
