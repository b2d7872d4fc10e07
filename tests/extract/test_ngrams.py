"""Hashed character n-grams as a text encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils import murmurhash3_32

from extract.encoders.ngrams import resolve_ngrams


def places(words: str) -> set[int]:
    padded = [f" {word} " for word in words.split()]
    grams = {w[i : i + n] for w in padded for n in (3, 4, 5) for i in range(len(w) - n + 1)}
    return {abs(murmurhash3_32(gram, seed=0)) % 4096 for gram in grams}


def test_a_text_has_the_places_of_its_ngrams() -> None:
    encoder = resolve_ngrams().load(torch.device("cpu"))
    numbers = encoder.prepare(["So HAPPY happy #sun http://t.co/xyz", ""])
    encoded = encoder.encode(numbers)
    expected = np.zeros(4096)
    expected[list(places("so happy #sun"))] = 1
    expected /= np.linalg.norm(expected)
    assert encoded.pooled.shape == (2, 1, 4096)
    assert encoded.pooled[0, 0].numpy() == pytest.approx(expected, abs=1e-3)
    assert not encoded.pooled[1].any()
    assert encoded.lengths == [0, 0]
    identity = resolve_ngrams().identity
    assert (identity.name, identity.modality, identity.random_weights) == ("ngrams", "text", False)
