"""Feature banks as Python users open them; commands use a `Session`."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import DEFAULT_PAIR, EncoderPair

from ..session.session import Session
from . import live


def open_bank(
    settings: Settings,
    split: str,
    samples: Sequence[Sample],
    pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,),
) -> FeatureBank:
    """Opens the caches of a split; see `Session.bank`.

    Args:
        settings: Name the data, the encoders and the caches.
        split: One of `SPLITS`.
        samples: All samples of the split.
        pairs: Encoders whose features are opened.

    Raises:
        MmsaError: As `Session.bank` raises.
    """
    return Session(settings, samples={split: samples}).bank(split, pairs)


def live_bank(
    settings: Settings, samples: Sequence[Sample], pairs: Sequence[EncoderPair] = (DEFAULT_PAIR,)
) -> FeatureBank:
    """Encodes samples now, without a cache; see `compose.predict.live.live_bank`.

    Args:
        settings: Name the encoders.
        samples: What to encode.
        pairs: The encoders.
    """
    return live.live_bank(Session(settings), samples, pairs)
