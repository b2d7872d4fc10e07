"""Synonyms by a table derived from Princeton WordNet (see WORDNET-LICENSE)."""

from __future__ import annotations

import functools
import gzip
from importlib.resources import files


@functools.cache
def _table() -> dict[str, str]:
    """Synonyms by word, separated by commas."""
    packed = files(__package__).joinpath("wordnet.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").split("\n")
    return dict(line.split("\t", 1) for line in lines)


def synonyms(word: str) -> tuple[str, ...]:
    """Single-word synonyms of all senses, lower case, sorted; empty for unknown words."""
    others = _table().get(word.lower())
    return tuple(others.split(",")) if others else ()


@functools.cache
def all_words() -> frozenset[str]:
    """All words of the table, lower case."""
    return frozenset(_table())
