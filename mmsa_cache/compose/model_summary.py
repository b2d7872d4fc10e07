"""``mmsa train --summary``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fuse.models.summary import summarise
from fuse.training.classifier import input_dims, make_model
from mmsa_cache.config.settings import Settings
from mmsa_cache.store.identity import Origin

from .choose import choose_settings
from .locate import origins_here
from .samples import load_samples
from .training_split import features_of


def summary(
    settings: Settings, studies: Sequence[str], assignments: Sequence[str]
) -> list[dict[str, Any]]:
    """The parts of the settings' models: shapes and parameters."""
    samples = load_samples(settings, "train")
    chosen, _, _ = choose_settings(
        studies, assignments, lambda: Origin.model_validate(origins_here(settings, samples))
    )
    bank, origin = features_of(settings, samples, [setting.encoders for setting in chosen])
    return [
        asdict(row)
        for setting in chosen
        for row in summarise(make_model(setting, input_dims(bank, setting), len(origin["classes"])))
    ]
