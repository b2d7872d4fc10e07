"""What is extracted beside the default encoders: n-grams, and the sentiment lexicon for English."""

from __future__ import annotations

from collections.abc import Sequence

from extract.encoders.lexicon import is_installed
from extract.inputs.english import ENGLISH_SHARE, english_share
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say
from mmsa_cache.names import DEFAULT_ENCODER, NGRAMS, VADER

from ..session.store import Store
from .reading import Split

_ASKED = 2_000
"""Texts of a split that are looked at, evenly spread."""


def with_lexicon(
    names: list[str], settings: Settings, store: Store, splits: Sequence[Split]
) -> list[str]:
    """Names of encoders to extract, and those of rules where the default one is among them.

    ``auto`` takes the lexicon where it is installed and most texts are English, or the store has
    it; n-grams are of any language.
    """
    wanted = settings.text.lexicon
    if wanted == "none" or DEFAULT_ENCODER not in names:
        return names
    found = [*names, NGRAMS]
    if wanted == VADER or VADER in names or _suits(store, splits):
        found.append(VADER)
    return list(dict.fromkeys(found))


def _suits(store: Store, splits: Sequence[Split]) -> bool:
    """Whether the lexicon does; says so, and why not."""
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
    spread = split.samples[:: max(1, len(split.samples) // _ASKED)]
    return [text for text in spread.table["text"].to_pylist() if text]
