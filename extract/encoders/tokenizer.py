"""Tokenizers of transformers, and what they make of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa_cache.errors import ModelError
from mmsa_cache.files.disk import copy_new, write_new
from mmsa_cache.files.temporary import temporary_folder

from .folder import tokenizer_files, tokenizer_settings
from .joint import read_text_side
from .transformer import load_config
from .weights import text_folder

_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


def load_tokenizer(folder: Path) -> Any:
    """Loads a model's tokenizer, from a folder that holds its known files alone.

    Raises:
        ModelError: It is not supported, or transformers cannot load it.
    """
    try:
        config = load_config(folder)
        from transformers import AutoTokenizer

        with temporary_folder() as own:
            for path in tokenizer_files(folder):
                if path.name not in _SETTINGS:
                    copy_new(path.resolve(), own / path.name, path.stat().st_size)
            for name in _SETTINGS:
                settings = tokenizer_settings(folder, name)
                if settings is not None:
                    write_new(own / name, json.dumps(settings).encode())
            return AutoTokenizer.from_pretrained(
                own, config=config, local_files_only=True, trust_remote_code=False
            )
    except ModelError:
        raise
    except Exception as error:  # transformers raises many kinds for a bad folder
        raise ModelError(
            f"The tokenizer in {folder} cannot be loaded: {error}",
            "Check that transformers' AutoTokenizer can load this folder.",
        ) from error


def tokenize(tokenizer: Any, texts: str | Sequence[str], **how: Any) -> Any:
    """What a tokenizer makes of texts.

    Raises:
        ModelError: It cannot read one, as with a pattern that takes too long.
    """
    try:
        return tokenizer(texts, **how)
    except BaseException as error:  # a panic of the library is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"The tokenizer cannot read a text: {str(error)[:200]}",
            "Check tokenizer.json in the model's folder, or give another model.",
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
        max_tokens = min(max_tokens, read_text_side(folder).limit)
    tokenizer = load_tokenizer(folder)
    unknown = tokenizer.unk_token_id
    counts = []
    for first in range(0, len(texts), _PIECE):
        piece = list(texts[first : first + _PIECE])
        for ids in tokenize(tokenizer, piece, truncation=False, verbose=False)["input_ids"]:
            counts.append(TokenCount(len(ids), ids.count(unknown)))
    return counts, max_tokens
