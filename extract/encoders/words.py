"""Words of texts and their tokens."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.errors import ModelError

from .text import TextSpec
from .tokenizer import load_tokenizer, tokenize

_LONGEST_WORD = 30
"""Characters of a word between spaces."""


def words_of(spec: TextSpec, texts: Sequence[str]) -> list[list[tuple[str, list[int]]]]:
    """The words of texts, each with the places of its tokens among those that the encoder gives.

    Words are separated by spaces; long stretches (writing without spaces) are split into the
    tokenizer's own words. Tokens without characters, such as ``[CLS]``, are no words.

    Args:
        spec: The encoder.
        texts: As they were encoded.

    Raises:
        ModelError: The tokenizer does not give the characters of a token.
    """
    tokenizer = load_tokenizer(spec.folder)
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer of {spec.name} does not say which characters it read.")
    found = []
    for text in texts:
        encoded = tokenize(
            tokenizer,
            text,
            truncation=True,
            max_length=spec.max_tokens,
            return_offsets_mapping=True,
        )
        words: dict[tuple[int, int | None], list[int]] = {}
        spans: dict[tuple[int, int | None], list[int]] = {}
        for place, ((start, end), number) in enumerate(
            zip(encoded["offset_mapping"], encoded.word_ids(), strict=True)
        ):
            if number is None or start == end:
                continue
            # Some tokenizers count the space before a word to its first token.
            start += len(text[start:end]) - len(text[start:end].lstrip())
            between = _chunk(text, start)
            whole = len(between) <= _LONGEST_WORD
            key = (between.start, None) if whole else (between.start, number)
            words.setdefault(key, []).append(place)
            span = spans.setdefault(key, [start, end])
            span[:] = min(span[0], start), max(span[1], end)
        found.append([(text[slice(*spans[key])], places) for key, places in words.items()])
    return found


def _chunk(text: str, place: int) -> range:
    """The stretch without spaces around a place of a text."""
    start = place
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    end = place
    while end < len(text) and not text[end].isspace():
        end += 1
    return range(start, end)
