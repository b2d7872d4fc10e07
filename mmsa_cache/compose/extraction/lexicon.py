"""Adds n-grams and, for English texts, the sentiment lexicon to the encoders to extract."""

from __future__ import annotations

from collections.abc import Sequence

from extract.encoders.lexicon import is_installed
from extract.inputs.english import ENGLISH_SHARE, english_share
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.names import DEFAULT_ENCODER, NGRAMS, VADER

from ..session.store import Store
from .reading import Split

_TESTED = 2_000
"""Texts of a split whose language is tested, evenly spread."""


def add_rule_encoders(
    names: list[str], settings: Settings, store: Store, splits: Sequence[Split]
) -> list[str]:
    """Names of encoders, with those that follow rules if the default one is among them.

    N-grams suit any language. ``[text] lexicon = "auto"`` adds the lexicon if the store has it, or
    if it is installed and most texts are English.
    """
    lexicon = settings.text.lexicon
    if lexicon == "none" or DEFAULT_ENCODER not in names:
        return names
    extended = [*names, NGRAMS]
    if lexicon == VADER or VADER in names or _suits_lexicon(store, splits):
        extended.append(VADER)
    return list(dict.fromkeys(extended))


def _suits_lexicon(store: Store, splits: Sequence[Split]) -> bool:
    """Whether the lexicon is to be extracted; tells the user why or why not."""
    if any(VADER in encoder.names for encoder in store.encoders("text")):
        return True
    share = english_share(text for split in splits for text in _texts(split))
    if share is None or not is_installed():
        return False
    if share < ENGLISH_SHARE:
        say(f"Note: {share:.0%} of the texts look English: no sentiment lexicon is extracted.")
        return False
    say(
        f"{share:.0%} of the texts look English: the sentiment lexicon {VADER} is extracted "
        f"too (not with --lexicon none)."
    )
    return True


def _texts(split: Split) -> list[str]:
    samples = split.samples[:: max(1, len(split.samples) // _TESTED)]
    return [text for text in samples.table["text"].to_pylist() if text]
