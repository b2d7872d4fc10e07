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
NOT_ASKED = "–"
"""Stands where an axis does not matter for a cell."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of a table."""

    labels: dict[str, str]
    """What tells it from others: axis → value."""
    setting: Setting


def cells(study: StudyConfig, axes: Sequence[str]) -> list[Cell]:
    """Every combination of a study's lists, those that come to the same once.

    Args:
        study: Its space has lists only.
        axes: The parameters in the space, the one that changes slowest first.

    Raises:
        SettingsError: A parameter has a range, or there are too many combinations.
    """
    ranges = [key for key, choice in study.space.items() if isinstance(choice, RangeChoice)]
    if ranges:
        raise SettingsError(
            f"An ablation goes through values one by one; {', '.join(ranges)}: a range.",
            "Write a list of values.",
        )
    found: list[dict[str, Value]] = [{}]
    for key in study.order():
        found = [
            {**values, key: value}
            for values in found
            for value in (
                study.space[key].candidates()
                if study.is_active(key, study.fixed | values)
                else [NOT_ASKED]
            )
        ]
        if len(found) > MOST_CELLS:
            raise SettingsError(
                f"The axes have more than {MOST_CELLS} combinations.", "Give fewer of them."
            )
    places = {key: [*study.space[key].candidates(), NOT_ASKED] for key in axes}
    found.sort(key=lambda values: [places[key].index(values[key]) for key in axes])
    by_setting: dict[Setting, dict[str, str]] = {}
    for values in found:
        asked = {key: value for key, value in values.items() if value is not NOT_ASKED}
        setting = effective(study.complete(study.fixed | asked))
        labels = {key: _shown(values[key]) for key in axes}
        known = by_setting.setdefault(setting, labels)
        # What differs between combinations that come to the same does not matter for them.
        by_setting[setting] = {
            key: value if value == labels[key] else NOT_ASKED for key, value in known.items()
        }
    return [Cell(labels, setting) for setting, labels in by_setting.items()]


def _shown(value: Value) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value) or '""'


def effective(setting: Setting) -> Setting:
    """The same model with what it does not read at its default: one modality needs no fusion."""
    if setting.modality == "both" or setting.fusion == KERNEL:
        return setting
    absent = "image_dim" if setting.modality == "text" else "text_dim"
    unread = ("fusion", "modality_embeddings", absent)
    return complete({key: value for key, value in asdict(setting).items() if key not in unread})


def title_of(cell: Cell) -> str:
    """``fusion concat, loss ce``"""
    return ", ".join(f"{key} {value}" for key, value in cell.labels.items())
