"""Words of texts and the indices of their tokens."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa_cache.errors import ModelError

from .text import TextSpec
from .tokenizer import load_tokenizer, tokenize

_MAX_WORD = 30
"""Characters of a word between spaces; longer stretches are split."""


def split_words(spec: TextSpec, texts: Sequence[str]) -> list[list[tuple[str, list[int]]]]:
    """The words of texts, each with the indices of its tokens in the encoder's output.

    Words are separated by spaces. Long stretches, as in writing without spaces, are split into the
    tokenizer's own words. Tokens without characters, such as ``[CLS]``, belong to no word.

    Args:
        spec: The encoder.
        texts: As they were encoded.

    Raises:
        ModelError: The tokenizer does not report the characters of a token.
    """
    tokenizer = load_tokenizer(spec.folder)
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer of {spec.name} does not say which characters it read.")
    words_of_texts = []
    for text in texts:
        encoding = tokenize(
            tokenizer,
            text,
            truncation=True,
            max_length=spec.max_tokens,
            return_offsets_mapping=True,
        )
        token_indices: dict[tuple[int, int | None], list[int]] = {}
        spans: dict[tuple[int, int | None], list[int]] = {}
        for index, ((start, end), word_id) in enumerate(
            zip(encoding["offset_mapping"], encoding.word_ids(), strict=True)
        ):
            if word_id is None or start == end:
                continue
            # Some tokenizers count the space before a word to its first token.
            start += len(text[start:end]) - len(text[start:end].lstrip())
            stretch = _stretch_around(text, start)
            key = (stretch.start, None if len(stretch) <= _MAX_WORD else word_id)
            token_indices.setdefault(key, []).append(index)
            span = spans.setdefault(key, [start, end])
            span[:] = min(span[0], start), max(span[1], end)
        words_of_texts.append(
            [(text[slice(*spans[key])], indices) for key, indices in token_indices.items()]
        )
    return words_of_texts


def _stretch_around(text: str, offset: int) -> range:
    """The stretch of a text without spaces that an offset lies in."""
    start = offset
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    end = offset
    while end < len(text) and not text[end].isspace():
        end += 1
    return range(start, end)
