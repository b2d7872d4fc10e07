"""Segmentation of texts in scripts without spaces: Chinese, Japanese, Thai and others.

jieba splits Chinese into words where it is installed (``mmsa[chinese]``). Everything else is split
into characters.
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
_LINK = r"(?:https?:|www\.)[!-~]*"  # text may follow without a space
_SEGMENTS = re.compile(
    rf"{_LINK}|@[\w-]+|{_LETTERS}(?:['’-]{_LETTERS})*|(?P<han>[{_HAN}]+)|(?P<other>[{_OTHER}]+)"
    r"|\s+|.",
    re.DOTALL,
)
UNSPACED = f"[{_HAN}{_OTHER}]"
"""Regular expression of one character of such a script, for Python and RE2."""


def is_unspaced(text: str) -> bool:
    """Whether a text is mostly in scripts without spaces; two characters count as a word."""
    characters = words = 0
    for match in _SEGMENTS.finditer(text):
        if match["han"] or match["other"]:
            characters += len(match[0])
        else:
            words += is_word(match[0])
    return characters > 0 and characters >= 2 * words


def split_segments(text: str) -> list[str]:
    """Splits a text into words, links, mentions, signs and white space, leaving nothing out."""
    return [segment for match in _SEGMENTS.finditer(text) for segment in _split_match(match)]


def _split_match(match: re.Match[str]) -> Iterable[str]:
    split_chinese = _jieba()
    if match["han"] and split_chinese is not None:
        return split_chinese(match["han"])
    return _split_characters(match[0]) if match["han"] or match["other"] else [match[0]]


def _split_characters(text: str) -> Iterator[str]:
    """Splits a text into characters, each with its combining marks."""
    character = ""
    for code_point in text:
        if character and not unicodedata.category(code_point).startswith("M"):
            yield character
            character = ""
        character += code_point
    yield character


def is_word(segment: str) -> bool:
    """Whether a segment is a word, not a sign, white space, a link or a mention."""
    return segment[0].isalnum() and re.match(_LINK, segment) is None


def segmenter_version() -> str:
    """What splits Chinese, such as ``jieba 0.42.1``."""
    return "characters" if _jieba() is None else f"jieba {importlib.metadata.version('jieba')}"


@functools.cache
def _jieba() -> Callable[[str], list[str]] | None:
    """A function that splits Chinese into words; None where jieba is not installed."""
    try:
        import jieba
    except ImportError:
        return None
    tokenizer = jieba.Tokenizer()
    # jieba's own initialisation unpickles and writes a file in the shared temporary folder.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return lambda text: list(tokenizer.cut(text))
