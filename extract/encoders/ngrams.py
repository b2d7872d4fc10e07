"""Hashed character n-grams as a frozen text encoder. Nothing is fitted.

The n-grams of a text are all runs of 3 to 5 characters of its words in lower case, the space before
and after a word included; links are left out. Each n-gram is hashed to one of 4,096 features
(scikit-learn's `HashingVectorizer`). A text's vector has length 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from extract.inputs.english import LINK
from mmsa_cache.names import NGRAMS

from .numbers import NumbersSpec
from .options import Options
from .preparation import Rule

_DEFINITION = 1
"""Version of the numbers; raised when one of them changes."""
_NUMBERS = 4096
_LENGTHS = (3, 5)
_LINKS = re.compile(LINK, re.IGNORECASE)


def resolve_ngrams(options: Options = Options()) -> NumbersSpec:  # noqa: B008  (frozen)
    """The n-grams' specification; they need no files."""
    return NumbersSpec(
        options, {"encoder": NGRAMS, "definition": _DEFINITION}, _NUMBERS, _build_rule
    )


def _build_rule() -> Rule:
    from sklearn.feature_extraction.text import HashingVectorizer  # takes a second to import

    hashing = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=_LENGTHS,
        n_features=_NUMBERS,
        binary=True,
        alternate_sign=False,
        dtype="float32",
    )

    def numbers(texts: Sequence[str]) -> Tensor:
        counts = hashing.transform([_LINKS.sub(" ", text) for text in texts])
        return torch.from_numpy(counts.toarray())

    return numbers
