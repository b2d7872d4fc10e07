"""The report's figure 3 with the same cells trained here, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape

from mmsa_cache.escaping import single_line

from .records import CellFigures, Figure, ParityRecord
from .report_figures import BEST, FIGURE_3, FIGURE_3_NEUTRAL, LOSSES

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 760, 300, 52, 34, 236, 744
_COLOURS = {"ce": "#5f6b77", "acb": "#1f6fb2"}
_NAMES = {"ce": "cross-entropy", "acb": "ACB"}


def draw_figure(record: ParityRecord) -> str:
    """Draws figure 3: bars with intervals, diamonds for the report's values."""
    rare = record.rarest_class
    shown = single_line(rare)
    panels: list[tuple[str, Callable[[CellFigures], Figure], Mapping[str, tuple[float, float]]]] = [
        ("Accuracy", lambda cell: cell.accuracy, FIGURE_3),
        (f"Recall of {shown}", lambda cell: cell.recall[rare], FIGURE_3_NEUTRAL),
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT * len(panels)}" '
        'role="img" aria-labelledby="t d" font-family="sans-serif" font-size="12">',
        '<title id="t">Cross-entropy and ACB by fusion</title>',
        f'<desc id="d">Accuracy and recall of {escape(shown)}, text and image; the same figures '
        "stand in the table beside.</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT * len(panels)}" fill="#ffffff"/>',
    ]
    for panel, (title, figure_of, theirs) in enumerate(panels):
        ours = {
            (fusion, loss): figure_of(record.cell(fusion, "both", loss))
            for fusion in BEST
            for loss in LOSSES
        }
        parts.append(f'<g transform="translate(0 {_HEIGHT * panel})" fill="#222">')
        parts += _panel(title, ours, theirs)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(
    title: str,
    ours: Mapping[tuple[str, str], Figure],
    theirs: Mapping[str, tuple[float, float]],
) -> list[str]:
    def y(value: float) -> float:
        return round(_BOTTOM - value * (_BOTTOM - _TOP), 1)

    parts = [f'<text x="{_LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for step in range(0, 11, 2):
        parts.append(
            f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y(step / 10)}" y2="{y(step / 10)}" '
            'stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(step / 10) + 4}" text-anchor="end">{step / 10:.1f}</text>'
        )
    width = (_RIGHT - _LEFT) / len(BEST)
    for column, fusion in enumerate(BEST):
        middle = _LEFT + (column + 0.5) * width
        parts.append(
            f'<text x="{middle:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">{fusion}</text>'
        )
        for bar, loss in enumerate(LOSSES):
            figure = ours[fusion, loss]
            x = middle + (bar - 0.5) * 36
            parts.append(
                f'<rect x="{x - 15:.1f}" y="{y(figure.mean)}" width="30" '
                f'height="{_BOTTOM - y(figure.mean):.1f}" fill="{_COLOURS[loss]}"/>'
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(figure.low)}" '
                f'y2="{y(figure.high)}" stroke="#222" stroke-width="2"/>'
                f'<text x="{x:.1f}" y="{_BOTTOM - 6}" text-anchor="middle" font-size="10" '
                f'fill="#fff">{figure.mean:.3f}</text>'
            )
            if fusion in theirs:
                diamond = y(theirs[fusion][bar])
                parts.append(
                    f'<path d="M{x + 11:.1f} {diamond - 5:.1f}l5 5l-5 5l-5 -5z" fill="#fff" '
                    'stroke="#b3261e" stroke-width="1.5"/>'
                )
    for entry, (colour, name) in enumerate(
        [(_COLOURS[loss], _NAMES[loss]) for loss in LOSSES] + [("#b3261e", "the report's figure")]
    ):
        x = _LEFT + 150 * entry
        parts.append(
            f'<rect x="{x}" y="{_BOTTOM + 34}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{_BOTTOM + 44}">{name}</text>'
        )
    return parts
