"""From texts and pictures to the inputs of a model, without the model.

What is here can be pickled: a process that reads rows has no use for a model.
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
MOST = 2_000
"""Characters of a text that a rule reads: its time may grow faster than the length."""


@dataclass(frozen=True, slots=True)
class Squares:
    """Pictures → (3, size, size) uint8 each; see `fit_square`."""

    size: int
    """Side in pixels."""
    crop: float | None
    resample: str

    def __call__(self, values: Iterable[NDArray[np.uint8]]) -> list[Tensor]:
        """Pictures are (height, width, 3) uint8."""
        return [fit_square(image, self.size, self.crop, self.resample) for image in values]


class TokenIds:
    """Texts → token ids, (tokens,) int64 each, special tokens included; at least one each.

    Args:
        tokenizer: Of transformers.
        max_tokens: Longest sequence; longer ones are truncated.
        vocabulary: Tokens that the model knows.
        label: What messages call the encoder.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, vocabulary: int, label: str) -> None:
        self._arguments = tokenizer, max_tokens, vocabulary, label
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self._nothing: int = next((one for one in ends if one is not None), 0)
        """The token that stands for an empty text, where the tokenizer adds none."""
        self._lock = threading.Lock()  # a tokenizer keeps its truncation between calls

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __call__(self, values: Iterable[str]) -> list[Tensor]:
        """Token ids.

        Raises:
            ModelError: The model has no such token.
        """
        tokenizer, max_tokens, vocabulary, label = self._arguments
        texts = list(values)
        if not texts:
            return []
        with self._lock:
            rows = tokenize(tokenizer, texts, truncation=True, max_length=max_tokens)
        last = max(max(ids, default=self._nothing) for ids in rows["input_ids"])
        if last >= vocabulary:  # on a GPU it would end the process's use of it
            raise ModelError(
                f"{label}: its tokenizer gives token {last}, its model knows {vocabulary}.",
                "Give the folder of a model with its own tokenizer.",
            )
        return [torch.tensor(ids or [self._nothing]) for ids in rows["input_ids"]]


class Numbers:
    """Texts → the numbers of a rule, (numbers,) float32 each.

    Args:
        make: Makes the rule, in each process anew; its tables may take time to read.
    """

    def __init__(self, make: Callable[[], Rule]) -> None:
        self._make, self._rule = make, make()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make,)

    def __call__(self, values: Iterable[str]) -> list[Tensor]:
        texts = [text[:MOST] for text in values]
        return list(self._rule(texts)) if texts else []
