"""English words: how much of some texts is English, and compound hashtags cut into words.

The dictionary is that of `synonyms` (Princeton WordNet: nouns, verbs, adjectives, adverbs) with the
function words, which WordNet leaves out.
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
_SHORT = frozenset(word for word in _FUNCTION_WORDS.split() if len(word) <= 2)
"""The dictionary has too many others, symbols of elements among them."""
LINK = r"https?:\S*|www\.\S+"
"""A regular expression."""
_ASIDE = re.compile(rf"{LINK}|[@#]\w+|&\w+;")
"""Links, mentions, hashtags and entities: of any language."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SUFFIXES = (
    ("'s", ""), ("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ied", "y"),
    ("ing", ""), ("ing", "e"), ("er", ""), ("er", "e"), ("ier", "y"), ("est", ""), ("iest", "y"),
    ("ly", ""), ("n't", ""),
)  # fmt: skip
"""Of inflected forms, and what stands there in the dictionary."""
ENGLISH_SHARE = 0.5
"""A text is English where so many of its words are, texts are where so many of them are."""
_HASHTAG = re.compile(r"#(\w+)")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
"""Of a hashtag: by capitals and digits."""
_LONGEST = 40
"""Letters of a part that is cut further."""


@functools.cache
def dictionary() -> frozenset[str]:
    """English words in lower case, uninflected."""
    return all_words() | frozenset(_FUNCTION_WORDS.split())


def is_word(word: str) -> bool:
    """Whether a word in lower case is English, perhaps inflected."""
    words = dictionary()
    return word in words or any(
        word.endswith(suffix) and len(stem := word.removesuffix(suffix) + end) > 2 and stem in words
        for suffix, end in _SUFFIXES
    )


def english_share(texts: Iterable[str]) -> float | None:
    """Share of texts in English, of those that have words; None where none has.

    A text counts as English where at least half of its words, without links, mentions and hashtags,
    stand in the dictionary. Other languages share fewer with English ("in", "die", "on").
    """
    found = []
    for text in texts:
        words = [word.lower().replace("’", "'") for word in _WORD.findall(_ASIDE.sub(" ", text))]
        if words:
            found.append(sum(map(is_word, words)) >= ENGLISH_SHARE * len(words))
    return sum(found) / len(found) if found else None


def cut_hashtags(text: str, known: Callable[[str], bool] = is_word) -> str:
    """A text with the words of its hashtags in their place: ``#NotSoHappy`` → ``Not So Happy``.

    Hashtags are cut at capitals and digits. Letters that are no word then are cut into the fewest
    words, the longest first, or stay whole: ``#bestdayever`` → ``best day ever``.

    Args:
        text: The text.
        known: Whether there is a word, in lower case.
    """

    def cut(tag: re.Match[str]) -> str:
        return " ".join(word for part in _PARTS.findall(tag[1]) for word in _words(part, known))

    return _HASHTAG.sub(cut, text)


def _words(part: str, known: Callable[[str], bool]) -> list[str]:
    """Letters cut into the fewest words; whole where they are not words throughout."""
    lower = part.lower()
    if known(lower) or not 3 < len(part) <= _LONGEST:
        return [part]
    ways: list[list[str] | None] = [None] * len(part) + [[]]
    for start in reversed(range(len(part))):
        for end in range(len(part), start, -1):
            rest, word = ways[end], lower[start:end]
            if rest is None or not (word in _SHORT or (len(word) > 2 and known(word))):
                continue
            best = ways[start]
            if best is None or len(rest) + 1 < len(best):
                ways[start] = [part[start:end], *rest]
    return ways[0] or [part]
