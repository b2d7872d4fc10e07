"""What a final model is made of: settings and their weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fuse.setting import Setting
from mmsa_cache.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings and the weight of each in the average of their probabilities."""

    settings: tuple[Setting, ...]
    """Different ones. The first says which offsets are fitted."""
    weights: tuple[float, ...]
    """One a setting, more than 0, summing to 1."""

    def __post_init__(self) -> None:
        given = len(self.settings) == len(self.weights) == len(set(self.settings)) > 0
        if not given or min(self.weights) <= 0 or not math.isclose(sum(self.weights), 1):
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
        """Settings that count alike; one that is given twice counts twice."""
        given = list(settings)
        counts = {setting: given.count(setting) / len(given) for setting in given}
        return cls(tuple(counts), tuple(counts.values()))


@dataclass(frozen=True, slots=True)
class WeightedSetting:
    """A setting of a final model, in all outer parts that give it one weight."""

    setting: Setting
    weight: float
    """Of its members in the whole model."""
    parts: tuple[int, ...]
    """Places of the outer parts, from 0."""


def weighted_settings(recipes: Sequence[Recipe], parts: int) -> list[WeightedSetting]:
    """The settings of a final model; outer parts count alike.

    Args:
        recipes: One for all outer parts, or one a part.
        parts: Number of outer parts.

    Raises:
        SettingsError: Neither one recipe is given nor one a part.
    """
    if len(recipes) not in (1, parts):
        raise SettingsError(f"There are {len(recipes)} recipes for {parts} outer parts.")
    each = [*recipes] * parts if len(recipes) == 1 else recipes
    found: dict[tuple[Setting, float], list[int]] = {}
    for place, recipe in enumerate(each):
        for key in zip(recipe.settings, recipe.weights, strict=True):
            found.setdefault(key, []).append(place)
    return [
        WeightedSetting(setting, weight * len(places) / parts, tuple(places))
        for (setting, weight), places in found.items()
    ]
