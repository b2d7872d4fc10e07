"""Feature banks of the caches that a command's settings mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.bank import BankChoice, FeatureBank
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import OWN_PAIR, EncoderPair

from .locate import cache_rows, finished_cache


def open_bank(
    settings: Settings,
    split: str,
    samples: Sequence[Sample],
    pairs: Sequence[EncoderPair] = (OWN_PAIR,),
) -> FeatureBank:
    """Opens the caches of a split.

    Args:
        settings: The command's settings.
        split: Its split.
        samples: All of them.
        pairs: Encoders whose features are wanted; the first ones' bank is returned, and gives the
            others by `FeatureBank.using`.

    Raises:
        SettingsError: There is no encoder of such a name.
        CacheNotFoundError: It was not extracted.
        StaleCacheError: It was extracted from something else; the fields are named.
        DamagedCacheError: A file is not what was sealed.
    """
    rows = cache_rows(settings, split, samples)

    def open_features(modality: str, name: str) -> ModalityFeatures:
        return ModalityFeatures.open(finished_cache(settings, split, modality, name, rows))

    return bank_of(open_features, samples, pairs)


def bank_of(
    open_features: Callable[[str, str], ModalityFeatures],
    samples: Sequence[Sample],
    pairs: Sequence[EncoderPair],
    *,
    partial: bool = False,
) -> FeatureBank:
    """The bank of the first pair, with the others opened too."""
    labels = [-1 if sample.label is None else sample.label for sample in samples]
    guids = [sample.guid for sample in samples]
    choice = BankChoice(open_features, guids, labels, partial=partial)
    for pair in pairs:
        choice.bank(*pair)
    return choice.bank(*pairs[0])
