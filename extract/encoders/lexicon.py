"""A sentiment lexicon as a frozen text encoder: VADER (Hutto and Gilbert, ICWSM 2014).

It has no model, and gives 13 numbers a text in one pool ``all``:

=======  ======================================================================================
0 – 3    ``neg``, ``neu``, ``pos`` (shares) and ``compound`` (−1 to 1) of the text without links
4 – 6    ``neg``, ``pos`` and ``compound`` of it with its hashtags cut into words, see
         `english.split_hashtags`
7 – 12   log(1 + count) of ``!``, ``?``, ``#``, links, retweet marks (the word ``RT``) and words
         (between spaces, links left out)
=======  ======================================================================================

VADER's time grows with the square of a text's length, so only the first
`preparation.MAX_CHARACTERS` characters are read.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import torch
from torch import Tensor

from extract.inputs.english import LINK, dictionary, is_word, split_hashtags
from mmsa_cache.errors import ModelError
from mmsa_cache.files.hashing import digest
from mmsa_cache.names import VADER
from mmsa_cache.store.fingerprint import Fields

from .numbers import NumbersSpec
from .options import Options

_PACKAGE = "vaderSentiment"
_DEFINITION = 2
"""Version of the 13 numbers; raised when one of them changes."""
_NUMBERS = 13
_LINKS = re.compile(LINK, re.IGNORECASE)


def resolve_lexicon(options: Options = Options()) -> NumbersSpec:  # noqa: B008  (frozen)
    """The lexicon's specification.

    Raises:
        ModelError: Its package is not installed.
    """
    try:
        version = distribution(_PACKAGE).version
    except PackageNotFoundError as error:
        raise ModelError(
            f"The text encoder {VADER} needs the package {_PACKAGE}.", f"pip install {_PACKAGE}"
        ) from error
    source = {"encoder": VADER, "package": version, **_table_hashes()}
    return NumbersSpec(options, source, _NUMBERS, _Lexicon)


def is_installed() -> bool:
    """Whether the lexicon's package is installed."""
    try:
        distribution(_PACKAGE)
    except PackageNotFoundError:
        return False
    return True


@functools.cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@functools.cache
def _table_hashes() -> Fields:
    analyzer = _analyzer()
    return {
        "weights": digest({"words": analyzer.lexicon, "emojis": analyzer.emojis}),
        "dictionary": digest({"words": sorted(dictionary())}),
        "definition": _DEFINITION,
    }


class _Lexicon:
    """Computes scores and counts of texts."""

    def __init__(self) -> None:
        self._analyzer = _analyzer()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([self._numbers(text) for text in texts])

    def _numbers(self, text: str) -> list[float]:
        plain, links = _LINKS.subn(" ", text)
        split = split_hashtags(plain, self._is_word)
        words = plain.split()
        counts = (*map(plain.count, "!?#"), links, words.count("RT"), len(words))
        scores = self._analyzer.polarity_scores(plain)
        split_scores = scores if split == plain else self._analyzer.polarity_scores(split)
        return [
            *(scores[key] for key in ("neg", "neu", "pos", "compound")),
            *(split_scores[key] for key in ("neg", "pos", "compound")),  # the three shares sum to 1
            *map(math.log1p, counts),
        ]

    def _is_word(self, word: str) -> bool:
        return word in self._analyzer.lexicon or is_word(word)
