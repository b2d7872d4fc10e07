"""Detection of English texts, and splitting of compound hashtags into words.

The dictionary is that of `synonyms` (Princeton WordNet: nouns, verbs, adjectives and adverbs) and
the function words, which WordNet leaves out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from .synonyms import all_words

_FUNCTION_WORDS = """
a about above after again all also am an and any are around as at away back be because been before
being below between both but by came can come could did do does doing done down during each even
ever every few for from get gets go goes going gone got had has have having he her here hers herself
him himself his how i if in into is it its itself just know let like made make many may me might
more most much must my myself never new no nor not now of off on once one only or other our ours out
over own really same see she should so some still such than that the their theirs them themselves
then there these they this those through to too two under until up upon us very was we went were
what when where which while who whom whose why will with without would yes yet you your yours
yourself
"""
_SHORT_WORDS = frozenset(word for word in _FUNCTION_WORDS.split() if len(word) <= 2)
"""Words of up to two letters in hashtags. WordNet has too many others, such as chemical symbols."""
LINK = r"https?:\S*|www\.\S+"
"""Regular expression of a link."""
_NO_LANGUAGE = re.compile(rf"{LINK}|[@#]\w+|&\w+;")
"""Links, mentions, hashtags and entities, which belong to no language."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SUFFIXES = (
    ("'s", ""), ("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ied", "y"),
    ("ing", ""), ("ing", "e"), ("er", ""), ("er", "e"), ("ier", "y"), ("est", ""), ("iest", "y"),
    ("ly", ""), ("n't", ""),
)  # fmt: skip
"""Suffixes of inflected forms, and their replacements in the dictionary form."""
ENGLISH_SHARE = 0.5
"""Share of English words from which a text is English; share of such texts from which a data set
is."""
_HASHTAG = re.compile(r"#(\w+)")
_HASHTAG_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
"""Parts of a hashtag by its capitals and digits."""
_MAX_PART = 40
"""Letters of the longest part that is split into words."""


@functools.cache
def dictionary() -> frozenset[str]:
    """English words in lower case, uninflected."""
    return all_words() | frozenset(_FUNCTION_WORDS.split())


def is_word(word: str) -> bool:
    """Whether a word in lower case is English; inflected forms count."""
    words = dictionary()
    return word in words or any(
        word.endswith(suffix) and len(stem := word.removesuffix(suffix) + end) > 2 and stem in words
        for suffix, end in _SUFFIXES
    )


def english_share(texts: Iterable[str]) -> float | None:
    """Share of English texts among those that have words; None where none has.

    A text is English where at least half of its words are in the dictionary, links, mentions and
    hashtags left out. Other languages share fewer words with English ("in", "die", "on").
    """
    are_english = []
    for text in texts:
        plain = _NO_LANGUAGE.sub(" ", text)
        words = [word.lower().replace("’", "'") for word in _WORD.findall(plain)]
        if words:
            are_english.append(sum(map(is_word, words)) >= ENGLISH_SHARE * len(words))
    return sum(are_english) / len(are_english) if are_english else None


def split_hashtags(text: str, is_word: Callable[[str], bool] = is_word) -> str:
    """Replaces the hashtags of a text by their words: ``#NotSoHappy`` → ``Not So Happy``.

    Hashtags are split at capitals and digits. A part that is no word is then split into the fewest
    words, the longest first, or stays whole: ``#bestdayever`` → ``best day ever``.

    Args:
        text: The text.
        is_word: Whether a word in lower case exists.
    """

    def split(hashtag: re.Match[str]) -> str:
        parts = _HASHTAG_PARTS.findall(hashtag[1])
        return " ".join(word for part in parts for word in _split_words(part, is_word))

    return _HASHTAG.sub(split, text)


def _split_words(part: str, is_word: Callable[[str], bool]) -> list[str]:
    """Splits letters into the fewest words; whole where they cannot be split into words."""
    lower = part.lower()
    if is_word(lower) or not 3 < len(part) <= _MAX_PART:
        return [part]
    splits: list[list[str] | None] = [None] * len(part) + [[]]  # the best one from each letter on
    for start in reversed(range(len(part))):
        for end in range(len(part), start, -1):
            rest, word = splits[end], lower[start:end]
            if rest is None or not (word in _SHORT_WORDS or (len(word) > 2 and is_word(word))):
                continue
            best = splits[start]
            if best is None or len(rest) + 1 < len(best):
                splits[start] = [part[start:end], *rest]
    return splits[0] or [part]
