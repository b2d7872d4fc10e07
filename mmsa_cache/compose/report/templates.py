"""The templates of the report pages, and how they show values."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jinja2

from ..pages.shell import page_templates
from .charts import tick_labels
from .tables import SIGNED, shown

_LABEL = 30
"""Letters beside a row of a chart."""


@functools.cache
def report_templates(*folders: Path) -> jinja2.Environment:
    """The templates of the report, with the filters that its parts need.

    Args:
        folders: Have templates that use them.
    """
    templates = page_templates(*folders, Path(__file__).parent)
    templates.filters |= {
        "plain": plain,
        "labels": tick_labels,
        "short": short,
        "shown": shown,
        "signed": lambda value: shown(value, SIGNED),
    }
    return templates


def plain(value: object) -> str:
    """A setting's value in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return value or "–"
    return json.dumps(value, ensure_ascii=False)


def short(name: str, most: int = _LABEL) -> str:
    """Both ends of a long name: those of runs begin alike.

    Args:
        name: The name.
        most: Letters that are left.
    """
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"
