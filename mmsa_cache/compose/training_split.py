"""Samples and features of the training split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import OWN_PAIR, EncoderPair
from mmsa_cache.native.device import pick_device

from .banks import open_bank
from .locate import origin_of
from .samples import load_samples


def labelled(settings: Settings) -> tuple[list[Sample], FeatureBank, dict[str, Any]]:
    """The training split's samples and features, and what identifies those features."""
    samples = load_samples(settings, "train")
    return samples, *features_of(settings, samples, [OWN_PAIR])


def features_of(
    settings: Settings, samples: list[Sample], pairs: Sequence[EncoderPair]
) -> tuple[FeatureBank, dict[str, Any]]:
    bank = open_bank(settings, "train", samples, pairs).to(pick_device(settings.device))
    return bank, origin_of(settings, bank, pairs)
