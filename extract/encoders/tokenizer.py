"""Tokenizers of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa_cache.errors import ModelError
from mmsa_cache.files.disk import copy_new, write_new
from mmsa_cache.files.temporary import temporary_folder

from .folder import find_tokenizer_files, read_tokenizer_settings
from .joint import read_text_side
from .model_errors import raise_model_errors
from .transformer import load_config
from .weights import find_text_folder

_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")


def load_tokenizer(folder: Path) -> Any:
    """Loads a model's tokenizer from a temporary folder that holds its known files only.

    Raises:
        ModelError: The tokenizer is not supported, or transformers cannot load it.
    """
    with raise_model_errors(
        f"The tokenizer in {folder} cannot be loaded",
        "Check that transformers' AutoTokenizer can load this folder.",
    ):
        config = load_config(folder)
        from transformers import AutoTokenizer

        with temporary_folder() as target:
            for path in find_tokenizer_files(folder):
                if path.name not in _SETTINGS:
                    copy_new(path.resolve(), target / path.name, path.stat().st_size)
            for name in _SETTINGS:
                settings = read_tokenizer_settings(folder, name)
                if settings is not None:
                    write_new(target / name, json.dumps(settings).encode())
            return AutoTokenizer.from_pretrained(
                target, config=config, local_files_only=True, trust_remote_code=False
            )


def tokenize(tokenizer: Any, texts: str | Sequence[str], **options: Any) -> Any:
    """Calls a tokenizer.

    Raises:
        ModelError: It cannot read a text, for example because a pattern takes too long.
    """
    try:
        return tokenizer(texts, **options)
    except BaseException as error:  # a panic of the library is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"The tokenizer cannot read a text: {str(error)[:200]}",
            "Check tokenizer.json in the model's folder, or give another model.",
        ) from error


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Numbers of tokens of one text."""

    tokens: int
    """All tokens, special ones included, before truncation."""
    unknown: int
    """Tokens outside the vocabulary."""


_CHUNK = 1024
"""Texts that are tokenized at a time."""


def count_tokens(
    texts: Sequence[str], model: str, max_tokens: int, *, joint: bool = False
) -> tuple[list[TokenCount], int]:
    """Counts tokens with a model's own tokenizer, if it is on this machine. Downloads nothing.

    Args:
        texts: The texts.
        model: See `resolve_text`.
        max_tokens: Longest token sequence by the settings.
        joint: Whether it is a joint image-text model.

    Returns:
        The counts of each text, and the longest sequence that the encoder takes.

    Raises:
        ModelError: The tokenizer is not on this machine or cannot be loaded.
    """
    folder, _ = find_text_folder(model, weights=False, download=False)
    if joint:
        max_tokens = min(max_tokens, read_text_side(folder).limit)
    tokenizer = load_tokenizer(folder)
    unknown = tokenizer.unk_token_id
    counts = []
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        for ids in tokenize(tokenizer, chunk, truncation=False, verbose=False)["input_ids"]:
            counts.append(TokenCount(len(ids), ids.count(unknown)))
    return counts, max_tokens
