"""Pools that are computed from tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsa_cache.errors import SettingsError
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.store.schema import Shard
from tests.support.shards import make_keys


def features(lengths: list[int], tokens: np.ndarray) -> ModalityFeatures:
    rows, dim = len(lengths), tokens.shape[1]
    pooled = np.zeros((rows, 1, dim), np.float16)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shard = Shard(make_keys(0, rows), [""] * rows, offsets, tokens, pooled, ("mean",))
    return ModalityFeatures([shard], "made up")


@pytest.mark.parametrize("lengths", [[2, 5, 1], [3, 3, 3]])
def test_figures_of_the_real_positions(lengths: list[int]) -> None:
    tokens = np.random.default_rng(0).standard_normal((sum(lengths), 4)).astype(np.float16) - 3
    found = features(lengths, tokens)
    rows = np.split(tokens.astype(np.float64), np.cumsum(lengths)[:-1])
    want = {
        "max": [row.max(0) for row in rows],
        "min": [row.min(0) for row in rows],
        "std": [row.std(0) for row in rows],
    }
    for pool, values in want.items():
        assert found.vector_dim(pool) == 4
        got = found.vectors(torch.tensor([2, 0, 1]), pool)
        assert got.dtype == torch.float16
        np.testing.assert_allclose(got.numpy(), np.stack(values)[[2, 0, 1]], rtol=1e-3, atol=1e-3)


def test_without_tokens_there_are_none() -> None:
    found = features([0, 0], np.zeros((0, 4), np.float16))
    with pytest.raises(SettingsError, match="no pool 'max'") as caught:
        found.vector_dim("max")
    assert "--tokens keep" in str(caught.value.hint)
