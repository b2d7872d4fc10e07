"""Tokenizers of transformers, and what they make of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa_cache.errors import ModelError

from .compat import prepare_torchvision
from .joint import text_side
from .transformer import NO_CODE
from .weights import text_folder


def load_tokenizer(folder: Path) -> Any:
    """Loads a model's tokenizer.

    Raises:
        ModelError: transformers cannot load it.
    """
    prepare_torchvision()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **NO_CODE)
    except Exception as error:  # transformers raises many kinds for a bad folder
        raise ModelError(
            f"The tokenizer in {folder} cannot be loaded: {error}",
            "Check that transformers' AutoTokenizer can load this folder.",
        ) from error


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What a tokenizer makes of one text."""

    tokens: int
    """Special ones included, before anything is truncated."""
    unknown: int
    """Tokens for text outside the vocabulary."""


_PIECE = 1024
"""Texts that are counted at a time."""


def count_tokens(
    texts: Sequence[str], model: str, max_tokens: int, *, joint: bool = False
) -> tuple[list[TokenCount], int]:
    """Tokenizes texts with a model's own tokenizer, if it is on this machine; nothing is fetched.

    Args:
        texts: The texts.
        model: As of `resolve_text`.
        max_tokens: Longest token sequence that is wanted.
        joint: It is a joint image-text model.

    Returns:
        A count a text, and the longest sequence that the encoder takes.

    Raises:
        ModelError: The tokenizer is not here or cannot be loaded.
    """
    folder, _ = text_folder(model, weights=False, download=False)
    if joint:
        max_tokens = min(max_tokens, text_side(folder).limit)
    tokenizer = load_tokenizer(folder)
    unknown = tokenizer.unk_token_id
    counts = []
    for first in range(0, len(texts), _PIECE):
        piece = list(texts[first : first + _PIECE])
        for ids in tokenizer(piece, truncation=False, verbose=False)["input_ids"]:
            counts.append(TokenCount(len(ids), ids.count(unknown)))
    return counts, max_tokens
