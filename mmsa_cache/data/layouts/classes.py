"""Class names, and the class that a label names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mmsa_cache.escaping import unescape_cell

LABELS = ("positive", "neutral", "negative")
"""Default class names; a class's code is its index."""
UNLABELLED = "null"
"""Label of an unlabelled row; an empty cell and ``NaN`` mean the same."""
_UNLABELLED = ("", UNLABELLED, "nan")
_FLOAT = re.compile(r"(-?\d+)\.0")
UNKNOWN = -2
"""Code of a label that names no class."""


def normalize_tag(tag: str) -> str:
    """A label in lower case without surrounding spaces; ``1.0``, as pandas writes it, is ``1``."""
    plain = tag.strip().casefold()
    integer = _FLOAT.fullmatch(plain)
    return integer[1] if integer else plain


def is_unlabelled(tag: str) -> bool:
    """Whether a label marks an unlabelled row."""
    return normalize_tag(tag) in _UNLABELLED


class ClassNames:
    """Class names in the order of their codes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._codes: dict[str, int | None] = dict.fromkeys(_UNLABELLED)
        # Names that differ in case only must match exactly.
        count = Counter(map(normalize_tag, classes))
        loose = {normalize_tag(name): code for code, name in enumerate(classes)}
        self._codes |= {name: code for name, code in loose.items() if count[name] == 1}
        self._exact = {name: code for code, name in enumerate(classes)}

    def code_of(self, tag: str) -> tuple[int | None, str]:
        """Finds the class of a label.

        Returns:
            Its code, None for an unlabelled row, `UNKNOWN` if there is no such class; and a remark
            if the label matched only after normalization.
        """
        for name in (tag, unescape_cell(tag)):  # verbatim, and as `predict --out` writes it
            if name in self._exact:
                return self._exact[name], ""
        code = self._codes.get(normalize_tag(tag), UNKNOWN)
        if code is None or code == UNKNOWN:
            return code, ""
        return code, f"{tag!r} as {self.classes[code]}"


def infer_classes(tags: Iterable[str] | Mapping[str, int]) -> tuple[str, ...]:
    """The classes that labels name, in alphabetical order.

    Of spellings that differ in case or spaces the most frequent one is taken, stripped; the three
    sentiments keep their order and spelling.

    Args:
        tags: Labels, repeated or with their counts.
    """
    spellings: dict[str, Counter[str]] = {}
    for tag, count in Counter(tags).items():
        plain = normalize_tag(tag)
        if plain not in _UNLABELLED:
            spellings.setdefault(plain, Counter())[tag.strip()] += count
    usual = tuple(name for name in LABELS if name in spellings)
    if usual:
        # Any other label is then a mistake, which reading the rows reports.
        return usual if 1 < len(usual) == len(spellings) else LABELS
    return tuple(sorted(_spelling(counts) for counts in spellings.values()))


def _spelling(counts: Counter[str]) -> str:
    most = max(counts.values())
    name = min(name for name, count in counts.items() if count == most)
    integer = _FLOAT.fullmatch(name)
    return integer[1] if integer else name
