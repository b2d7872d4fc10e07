"""Texts and pictures → inputs of a model.

Everything here can be pickled and holds no model: processes that read rows use it too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.inputs.decode import fit_square
from mmsa_cache.errors import ModelError

from .tokenizer import tokenize

Rule = Callable[[Sequence[str]], Tensor]
"""Texts → their numbers, (texts, numbers) float32."""
MAX_CHARACTERS = 2_000
"""Characters of a text that a rule reads. Its time may grow faster than the length."""


@dataclass(frozen=True, slots=True)
class Squares:
    """Pictures → (3, size, size) uint8 each, see `fit_square`."""

    size: int
    """Side in pixels."""
    crop: float | None
    resample: str

    def __call__(self, values: Iterable[NDArray[np.uint8]]) -> list[Tensor]:
        """Resizes and crops pictures, (height, width, 3) uint8 each."""
        return [fit_square(image, self.size, self.crop, self.resample) for image in values]


class TokenIds:
    """Texts → token ids, (tokens,) int64 each, special tokens included; at least one each.

    Args:
        tokenizer: A tokenizer of transformers.
        max_tokens: Longest sequence; longer ones are truncated.
        vocabulary: Size of the model's vocabulary.
        label: The encoder, for errors.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, vocabulary: int, label: str) -> None:
        self._arguments = tokenizer, max_tokens, vocabulary, label
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self._empty_text: int = next((token for token in ends if token is not None), 0)
        """Token of an empty text, where the tokenizer adds none."""
        self._lock = threading.Lock()  # truncation is a state of the tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __call__(self, values: Iterable[str]) -> list[Tensor]:
        """Tokenizes texts.

        Raises:
            ModelError: The model's vocabulary lacks a token.
        """
        tokenizer, max_tokens, vocabulary, label = self._arguments
        texts = list(values)
        if not texts:
            return []
        with self._lock:
            rows = tokenize(tokenizer, texts, truncation=True, max_length=max_tokens)
        largest = max(max(ids, default=self._empty_text) for ids in rows["input_ids"])
        if largest >= vocabulary:  # on a GPU this would make the device unusable for the process
            raise ModelError(
                f"{label}: its tokenizer gives token {largest}, its model knows {vocabulary}.",
                "Give the folder of a model with its own tokenizer.",
            )
        return [torch.tensor(ids or [self._empty_text]) for ids in rows["input_ids"]]


class Numbers:
    """Texts → the numbers of a rule, (numbers,) float32 each.

    Args:
        build_rule: Builds the rule, once in each process.
    """

    def __init__(self, build_rule: Callable[[], Rule]) -> None:
        self._build_rule, self._rule = build_rule, build_rule()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._build_rule,)

    def __call__(self, values: Iterable[str]) -> list[Tensor]:
        texts = [text[:MAX_CHARACTERS] for text in values]
        return list(self._rule(texts)) if texts else []
