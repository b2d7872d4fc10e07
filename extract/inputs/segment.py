"""Words of texts in scripts that put no spaces between them: Chinese, Japanese, Thai and others.

Chinese is cut into words by jieba where it is installed (``mmsa[chinese]``), anything else into
characters.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OTHER = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
)
_LETTERS = rf"[^\W{_HAN}{_OTHER}]+"
_LINK = r"(?:https?:|www\.)[!-~]*"  # what follows one without a space is text again
_PIECES = re.compile(
    rf"{_LINK}|@[\w-]+|{_LETTERS}(?:['’-]{_LETTERS})*|(?P<han>[{_HAN}]+)|(?P<other>[{_OTHER}]+)"
    r"|\s+|.",
    re.DOTALL,
)
UNSPACED = f"[{_HAN}{_OTHER}]"
"""A regular expression of one character, for Python and RE2."""


def is_unspaced(text: str) -> bool:
    """Whether a text is mostly of scripts without spaces: two characters count as a word."""
    own = words = 0
    for match in _PIECES.finditer(text):
        if match["han"] or match["other"]:
            own += len(match[0])
        else:
            words += is_word(match[0])
    return own > 0 and own >= 2 * words


def segments(text: str) -> list[str]:
    """A text cut into words, links, mentions, signs and white space; joined they are the text."""
    return [piece for match in _PIECES.finditer(text) for piece in _cut(match)]


def _cut(match: re.Match[str]) -> Iterable[str]:
    cut = _jieba()
    if match["han"] and cut is not None:
        return cut(match["han"])
    return _characters(match[0]) if match["han"] or match["other"] else [match[0]]


def _characters(text: str) -> Iterator[str]:
    """Characters, each with the marks that stand on it."""
    whole = ""
    for sign in text:
        if whole and not unicodedata.category(sign).startswith("M"):
            yield whole
            whole = ""
        whole += sign
    yield whole


def is_word(segment: str) -> bool:
    """Whether a segment is a word: no sign, white space, link or mention."""
    return segment[0].isalnum() and re.match(_LINK, segment) is None


def segmenter() -> str:
    """What cuts Chinese, as ``jieba 0.42.1``."""
    return "characters" if _jieba() is None else f"jieba {importlib.metadata.version('jieba')}"


@functools.cache
def _jieba() -> Callable[[str], list[str]] | None:
    """Cuts Chinese into words; None where jieba is not installed."""
    try:
        import jieba
    except ImportError:
        return None
    tokenizer = jieba.Tokenizer()
    # Its own start would unpickle, and write, a file in the folder of everybody's temporary files.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return lambda text: list(tokenizer.cut(text))
