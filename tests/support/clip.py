"""A tiny CLIP tokenizer."""

from __future__ import annotations

from typing import Any


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    pieces = [
        "<|startoftext|>",
        "<|endoftext|>",
        "a</w>",
        "g",
        "o",
        "d",
        "a",
        "y",
        "d</w>",
        "y</w>",
    ]
    merges = [("g", "o"), ("o", "d</w>"), ("g", "od</w>"), ("d", "a"), ("da", "y</w>")]
    pieces += ["".join(merge) for merge in merges]
    return CLIPTokenizer({piece: i for i, piece in enumerate(pieces)}, merges)
