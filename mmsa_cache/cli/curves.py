"""The learning curves of a run in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsa_cache.compose.report.charts import LearningCurve

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.:-=+*#"
WIDTH = 16
"""Most letters of a curve."""
_SHOWN = {"loss": "loss", "macro_f1": "macro-F1"}


def curve_line(charts: Sequence[LearningCurve], encoding: str) -> str:
    """The mean curves of the members, with their first and last values; empty without any.

    Args:
        charts: See `learning_curves`.
        encoding: Of the terminal; ASCII takes the place of blocks that it lacks.
    """
    shown = [chart for chart in charts if chart.key in _SHOWN and len(chart.mean) > 1]
    if not shown:
        return ""
    curves = []
    for chart in shown:
        values = [value for _, value in chart.mean]
        line = sparkline(values, encoding)
        curves.append(f"{_SHOWN[chart.key]} {values[0]:.3f} {line} {values[-1]:.3f}")
    members, epochs = len(shown[0].lines), len(shown[0].mean)
    of = f"mean of {members} members, " if members > 1 else ""
    return f"Curves: {', '.join(curves)} ({of}{epochs} epochs)"


def sparkline(values: Sequence[float], encoding: str) -> str:
    """A curve, lowest to highest value; more than `WIDTH` values are averaged.

    Args:
        values: One or more.
        encoding: See `curve_line`.
    """
    count, width = len(values), min(len(values), WIDTH)
    pieces = [values[k * count // width : (k + 1) * count // width] for k in range(width)]
    means = [sum(piece) / len(piece) for piece in pieces]
    low, span = min(means), (max(means) - min(means)) or 1.0
    letters = BLOCKS if _has(encoding, BLOCKS) else ASCII
    return "".join(letters[round((mean - low) / span * (len(letters) - 1))] for mean in means)


def _has(encoding: str, letters: str) -> bool:
    try:
        letters.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
