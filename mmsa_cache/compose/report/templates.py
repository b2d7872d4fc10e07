"""The templates of the report pages, and their filters."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jinja2

from ..pages.shell import page_templates, printable
from .charts import tick_labels
from .tables import SIGNED, shown

_LABEL_LENGTH = 30
"""Characters of a label in a chart."""


@functools.cache
def report_templates(*folders: Path) -> jinja2.Environment:
    """The report's templates and filters.

    Args:
        folders: Folders of further templates that use them.
    """
    templates = page_templates(*folders, Path(__file__).parent)
    templates.filters |= {
        "plain": plain,
        "labels": tick_labels,
        "short": short,
        "shown": shown,
        "scale": scale,
        "signed": lambda value: shown(value, SIGNED),
    }
    return templates


def render_page(template: str, *folders: Path, **values: object) -> str:
    """Renders a page with the report's templates.

    Args:
        template: Name of the template.
        folders: As of `report_templates`.
        values: Variables of the template.
    """
    return printable(report_templates(*folders).get_template(template).render(values))


def scale(value: float, low: float, high: float, start: float, end: float) -> float:
    """Maps a value linearly from ``low`` … ``high`` to ``start`` … ``end``."""
    return start + (value - low) / (high - low) * (end - start)


def plain(value: object) -> str:
    """The value of a setting in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value or "–"
    return json.dumps(value, ensure_ascii=False)


def short(name: str, length: int = _LABEL_LENGTH) -> str:
    """Both ends of a long name, since names of runs begin alike.

    Args:
        name: The name.
        length: Characters of the result, at most.
    """
    if len(name) <= length:
        return name
    return f"{name[: length // 2 - 1]}…{name[length // 2 - length :]}"
