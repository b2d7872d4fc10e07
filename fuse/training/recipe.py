"""The settings of a final model and their weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fuse.setting import Setting
from mmsa_cache.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings, and the weight of each in the average of their probabilities."""

    settings: tuple[Setting, ...]
    """Distinct settings. The first says which offsets are fitted."""
    weights: tuple[float, ...]
    """A positive weight a setting; they sum to 1."""

    def __post_init__(self) -> None:
        paired = len(self.settings) == len(self.weights) == len(set(self.settings)) > 0
        if not paired or min(self.weights) <= 0 or not math.isclose(sum(self.weights), 1):
            raise SettingsError(
                f"A recipe has different settings and a positive weight each, summing to 1; "
                f"received {len(self.settings)} settings and the weights {self.weights}."
            )

    @classmethod
    def single(cls, setting: Setting) -> Recipe:
        """One setting alone."""
        return cls((setting,), (1.0,))

    @classmethod
    def even(cls, settings: Iterable[Setting]) -> Recipe:
        """Settings of equal weight; one that is listed twice counts twice."""
        listed = list(settings)
        weights = {setting: listed.count(setting) / len(listed) for setting in listed}
        return cls(tuple(weights), tuple(weights.values()))


@dataclass(frozen=True, slots=True)
class WeightedSetting:
    """A setting of a final model in all outer parts that give it the same weight."""

    setting: Setting
    weight: float
    """Weight of its members in the whole model."""
    parts: tuple[int, ...]
    """Indices of the outer parts."""


def part_recipes(recipes: Sequence[Recipe], parts: int) -> list[Recipe]:
    """The recipe of each outer part.

    Args:
        recipes: One for all outer parts, or one a part.
        parts: Number of outer parts.

    Raises:
        SettingsError: There is neither one recipe nor one a part.
    """
    if len(recipes) not in (1, parts):
        raise SettingsError(f"There are {len(recipes)} recipes for {parts} outer parts.")
    return [*recipes] * parts if len(recipes) == 1 else [*recipes]


def weighted_settings(recipes: Sequence[Recipe], parts: int) -> list[WeightedSetting]:
    """The settings of a final model, whose outer parts have equal weights; see `part_recipes`."""
    indices: dict[tuple[Setting, float], list[int]] = {}
    for index, recipe in enumerate(part_recipes(recipes, parts)):
        for key in zip(recipe.settings, recipe.weights, strict=True):
            indices.setdefault(key, []).append(index)
    return [
        WeightedSetting(setting, weight * len(own) / parts, tuple(own))
        for (setting, weight), own in indices.items()
    ]
