"""The cells of an ablation: every combination of some axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fuse.figures.study import Value
from fuse.models.kernel import KERNEL
from fuse.search.study import RangeChoice, StudyConfig
from fuse.setting import Setting, complete
from mmsa_cache.errors import SettingsError

MOST_CELLS = 5000
INACTIVE = "–"
"""Shown where an axis has no effect on a cell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a table."""

    labels: dict[str, str]
    """Its values by axis."""
    setting: Setting


def cells(study: StudyConfig, axes: Sequence[str]) -> list[Cell]:
    """Every combination of a study's lists; equivalent combinations are one cell.

    Args:
        study: Its space has lists only.
        axes: The parameters of the space, the one that changes slowest first.

    Raises:
        SettingsError: A parameter has a range, or there are too many combinations.
    """
    ranges = [key for key, choice in study.space.items() if isinstance(choice, RangeChoice)]
    if ranges:
        raise SettingsError(
            f"An ablation goes through values one by one; {', '.join(ranges)}: a range.",
            "Write a list of values.",
        )
    combinations: list[dict[str, Value]] = [{}]
    for key in study.order():
        combinations = [
            {**values, key: value}
            for values in combinations
            for value in (
                study.space[key].candidates()
                if study.is_active(key, study.fixed | values)
                else [INACTIVE]
            )
        ]
        if len(combinations) > MOST_CELLS:
            raise SettingsError(
                f"The axes have more than {MOST_CELLS} combinations.", "Give fewer of them."
            )
    order = {key: [*study.space[key].candidates(), INACTIVE] for key in axes}
    combinations.sort(key=lambda values: [order[key].index(values[key]) for key in axes])
    by_setting: dict[Setting, dict[str, str]] = {}
    for values in combinations:
        active = {key: value for key, value in values.items() if value is not INACTIVE}
        setting = without_unused(study.complete(study.fixed | active))
        labels = {key: _format_value(values[key]) for key in axes}
        earlier = by_setting.setdefault(setting, labels)
        # An axis that differs between equivalent combinations has no effect on them.
        by_setting[setting] = {
            key: value if value == labels[key] else INACTIVE for key, value in earlier.items()
        }
    return [Cell(labels, setting) for setting, labels in by_setting.items()]


def _format_value(value: Value) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value) or '""'


def without_unused(setting: Setting) -> Setting:
    """The same model with unused values at their defaults: one modality needs no fusion."""
    if setting.modality == "both" or setting.fusion == KERNEL:
        return setting
    absent = "image_dim" if setting.modality == "text" else "text_dim"
    unused = ("fusion", "modality_embeddings", absent)
    return complete({key: value for key, value in asdict(setting).items() if key not in unused})


def title_of(cell: Cell) -> str:
    """``fusion concat, loss ce``"""
    return ", ".join(f"{key} {value}" for key, value in cell.labels.items())
