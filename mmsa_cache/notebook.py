"""HTML tables for notebooks, in the colours of the notebook's theme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mmsa_cache.escaping import escape_controls

_LEFT = ' style="text-align: left"'
_MOST_ROWS = 24
_LONGEST = 300
"""Most characters of a cell."""


def as_html(
    title: str,
    facts: Mapping[str, object],
    header: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
    notes: Sequence[str] = (),
) -> str:
    """HTML for ``_repr_html_``; everything is escaped, long texts and tables are cut.

    Args:
        title: Kind and name of the object.
        facts: Names and values, a row each; empty values are left out.
        header: Header of a second table.
        rows: Rows of a second table; floats are shown with three digits, None as a dash.
        notes: Shown below the tables.
    """
    filled = [fact for fact in facts.items() if fact[1] not in (None, "", [], ())]
    below = "".join(f"<p>Note: {_text(note)}</p>" for note in notes[:_MOST_ROWS])
    return f"<div><b>{_text(title)}</b>{_table((), filled)}{_table(header, rows)}{below}</div>"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th{_LEFT}>{_text(name)}</th>" for name in header)
    lines = [f"<thead><tr>{head}</tr></thead>" if header else "", "<tbody>"]
    for first, *others in rows[:_MOST_ROWS]:
        cells = "".join(f"<td{_LEFT}>{_text(cell)}</td>" for cell in others)
        lines.append(f"<tr><th{_LEFT}>{_text(first)}</th>{cells}</tr>")
    if len(rows) > _MOST_ROWS:
        lines.append(f"<tr><th>… and {len(rows) - _MOST_ROWS} more</th></tr>")
    return f"<table>{''.join(lines)}</tbody></table>"


def _text(value: object) -> str:
    if value is None:
        return "–"
    text = f"{value:.3f}" if isinstance(value, float) else escape_controls(str(value))
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
