"""Guesses encodings, for suggestions only: texts are read with the declared encoding."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CANDIDATES = ("utf-8", "gb18030", "cp1252")
"""Encodings without byte order marks, the strictest first."""


def matching_encodings(samples: Iterable[bytes]) -> list[str]:
    """The encodings in which all samples are valid, the most likely first.

    A byte order mark decides on ``utf-8-sig`` or ``utf-16``. Bytes that are valid UTF-8 are hardly
    ever anything else; bytes that are valid ``gb18030`` and ``cp1252`` may be either.

    Args:
        samples: Beginnings of text files or tables, which may end within a character.

    Returns:
        Values for ``--encoding``; none if no encoding fits.
    """
    left = list(CANDIDATES)
    marks = set()
    for sample in samples:
        if sample.startswith(_UTF_16):
            marks.add("utf-16")
        elif sample.startswith(codecs.BOM_UTF8):
            marks.add("utf-8-sig")
        left = [name for name in left if _valid(sample, name)]
    if "utf-16" in marks:
        return ["utf-16"] if len(marks) == 1 else []
    if "utf-8" in left:
        return ["utf-8-sig"] if marks else ["utf-8"]
    return left


def _valid(sample: bytes, encoding: str) -> bool:
    if b"\0" in sample:  # none of the candidates has NUL in texts
        return False
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return False
    return True
