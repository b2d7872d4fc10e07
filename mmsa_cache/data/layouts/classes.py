"""Class names: which there are, and which one a label means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mmsa_cache.escaping import unescape_cell

LABELS = ("positive", "neutral", "negative")
"""Class names where nothing says otherwise; a class's code is its place."""
UNLABELLED = "null"
"""What a label file says of a row without a label; an empty cell and ``NaN`` say it too."""
_UNLABELLED = ("", UNLABELLED, "nan")
_FLOAT = re.compile(r"(-?\d+)\.0")
UNKNOWN = -2
"""Code of a label that is no class."""


def normalize_tag(tag: str) -> str:
    """A label without case and spaces around; ``1.0`` of a pandas round trip is ``1``."""
    plain = tag.strip().casefold()
    integer = _FLOAT.fullmatch(plain)
    return integer[1] if integer else plain


def is_unlabelled(tag: str) -> bool:
    """Whether a label says that there is none."""
    return normalize_tag(tag) in _UNLABELLED


class ClassNames:
    """Class names in the order of their codes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._codes: dict[str, int | None] = dict.fromkeys(_UNLABELLED)
        # Names that differ in case alone are told apart by it.
        count = Counter(map(normalize_tag, classes))
        loose = {normalize_tag(name): code for code, name in enumerate(classes)}
        self._codes |= {name: code for name, code in loose.items() if count[name] == 1}
        self._exact = {name: code for code, name in enumerate(classes)}

    def code_of(self, tag: str) -> tuple[int | None, str]:
        """The code of a label and, if it was not taken as it stands, how.

        Returns:
            None without a label, `UNKNOWN` where there is no such class.
        """
        for name in (tag, unescape_cell(tag)):  # as it stands, and as `predict --out` writes it
            if name in self._exact:
                return self._exact[name], ""
        code = self._codes.get(normalize_tag(tag), UNKNOWN)
        if code is None or code == UNKNOWN:
            return code, ""
        return code, f"{tag!r} as {self.classes[code]}"


def infer_classes(tags: Iterable[str] | Mapping[str, int]) -> tuple[str, ...]:
    """The classes that labels name, in alphabetical order.

    Of spellings that differ in case or spaces the most frequent one counts, its spaces taken off;
    the three sentiments keep their order and spelling.

    Args:
        tags: Labels, as often as they occur or with how often.
    """
    spellings: dict[str, Counter[str]] = {}
    for tag, count in Counter(tags).items():
        plain = normalize_tag(tag)
        if plain not in _UNLABELLED:
            spellings.setdefault(plain, Counter())[tag.strip()] += count
    usual = tuple(name for name in LABELS if name in spellings)
    if usual:
        # A label that is none of them is a mistake there, which reading the rows names.
        return usual if 1 < len(usual) == len(spellings) else LABELS
    return tuple(sorted(_spelling(counts) for counts in spellings.values()))


def _spelling(counts: Counter[str]) -> str:
    most = max(counts.values())
    name = min(name for name, count in counts.items() if count == most)
    integer = _FLOAT.fullmatch(name)
    return integer[1] if integer else name
