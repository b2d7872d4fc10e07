"""A sentiment lexicon as a frozen text encoder: VADER (Hutto and Gilbert, ICWSM 2014).

No model: 13 numbers a text, in one pool ``all``:

=======  ======================================================================================
0 – 3    ``neg``, ``neu``, ``pos`` (shares) and ``compound`` (−1 to 1) of the text without links
4 – 6    ``neg``, ``pos`` and ``compound`` of it with its hashtags cut into words, see
         `english.cut_hashtags`
7 – 12   log(1 + count) of ``!``, ``?``, ``#``, links, retweet marks (the word ``RT``) and words
         (between spaces, links left out)
=======  ======================================================================================

Of a text the first 2,000 characters are read: VADER's time grows with the square of the length.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import torch
from torch import Tensor

from extract.inputs.english import LINK, cut_hashtags, dictionary, is_word
from mmsa_cache.errors import ModelError
from mmsa_cache.hashing import digest
from mmsa_cache.names import VADER
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import EncoderIdentity

from .compute import encoded
from .options import Options
from .protocol import Encoded, Size

_PACKAGE = "vaderSentiment"
_DEFINITION = 2
"""Of the 13 numbers; goes up when one of them changes."""
_NUMBERS = 13
_LINKS = re.compile(LINK, re.IGNORECASE)
_MOST = 2_000
"""Characters of a text that are read."""


@dataclass(frozen=True, slots=True)
class LexiconSpec:
    """The lexicon of the package that is installed."""

    options: Options
    source: Fields
    """What identifies the package and its tables."""

    @property
    def identity(self) -> EncoderIdentity:
        """What changes its features."""
        options = self.options.fields("text")
        kept = {key: value for key, value in options.items() if key not in ("layer", "pool_layers")}
        return EncoderIdentity.of_fields({**self.source, "modality": "text", **kept})

    @property
    def label(self) -> str:
        """Name for people."""
        return self.identity.label

    def computed_in(self, compute: str) -> LexiconSpec:
        """The same; no precision changes it."""
        return replace(self, options=replace(self.options, compute=compute))

    def load(self, device: torch.device) -> LexiconEncoder:
        """Reads the lexicon; it needs no device."""
        return LexiconEncoder(self)


def resolve_lexicon(options: Options = Options()) -> LexiconSpec:  # noqa: B008  (frozen)
    """Finds the lexicon and what identifies it.

    Raises:
        ModelError: Its package is not installed.
    """
    try:
        version = distribution(_PACKAGE).version
    except PackageNotFoundError as error:
        raise ModelError(
            f"The text encoder {VADER} needs the package {_PACKAGE}.", f"pip install {_PACKAGE}"
        ) from error
    return LexiconSpec(options, {"encoder": VADER, "package": version, **_tables()})


def is_installed() -> bool:
    """Whether the package of the lexicon is."""
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
def _tables() -> Fields:
    analyzer = _analyzer()
    return {
        "weights": digest({"words": analyzer.lexicon, "emojis": analyzer.emojis}),
        "dictionary": digest({"words": sorted(dictionary())}),
        "definition": _DEFINITION,
    }


class LexiconEncoder:
    """Scores and counts of texts.

    Args:
        spec: The lexicon.
    """

    equal_inputs = True
    pools: tuple[str, ...] = ("all",)
    size = Size(0, False, _NUMBERS, _NUMBERS)

    def __init__(self, spec: LexiconSpec) -> None:
        self.label, self.options = spec.label, spec.options
        self._analyzer = _analyzer()

    def prepare(self, values: Iterable[str]) -> list[Tensor]:
        """The numbers of texts, (13,) float32 each."""
        return [torch.tensor(self._numbers(text)) for text in values]

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Puts numbers together: the work is done.

        Args:
            batch: Of `prepare`.

        Returns:
            The pool ``all``, and no positions.
        """
        numbers = torch.stack(list(batch))
        return encoded(numbers[:0], [0] * len(batch), [numbers], None)

    def _numbers(self, text: str) -> list[float]:
        plain, links = _LINKS.subn(" ", text[:_MOST])
        cut = cut_hashtags(plain, self._is_word)
        words = plain.split()
        counts = (*map(plain.count, "!?#"), links, words.count("RT"), len(words))
        scores = self._analyzer.polarity_scores(plain)
        of_cut = scores if cut == plain else self._analyzer.polarity_scores(cut)
        return [
            *(scores[key] for key in ("neg", "neu", "pos", "compound")),
            *(of_cut[key] for key in ("neg", "pos", "compound")),  # the three shares sum to 1
            *map(math.log1p, counts),
        ]

    def _is_word(self, word: str) -> bool:
        return word in self._analyzer.lexicon or is_word(word)
