"""Character n-grams as a frozen text encoder: which spellings a text has, without any fitting.

Of each word of the text in lower case, links left out, all runs of 3 to 5 characters, the space
before and after it among them. Each has one of 4,096 places by its hash; a text's vector, of length
1, is above zero in the places of its n-grams (feature hashing, see scikit-learn's
`HashingVectorizer`).
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
"""Of the numbers; goes up when one of them changes."""
_NUMBERS = 4096
_LENGTHS = (3, 5)
_LINKS = re.compile(LINK, re.IGNORECASE)


def resolve_ngrams(options: Options = Options()) -> NumbersSpec:  # noqa: B008  (frozen)
    """What identifies the n-grams; nothing has to be found."""
    return NumbersSpec(options, {"encoder": NGRAMS, "definition": _DEFINITION}, _NUMBERS, _rule)


def _rule() -> Rule:
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
        found = hashing.transform([_LINKS.sub(" ", text) for text in texts])
        return torch.from_numpy(found.toarray())

    return numbers
