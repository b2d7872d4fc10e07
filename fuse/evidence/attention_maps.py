"""Attention of text tokens to patches, from a model's forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fuse.models.attention_fusions import (
    Attention,
    AttentionCombine,
    AttentionConcat,
    EncoderFusion,
)
from fuse.models.model import MultimodalClassifier
from fuse.setting import Setting
from fuse.training.classifier import gather_batch, matmul_precision
from fuse.training.ensemble import Ensemble
from fuse.training.member import model_inputs
from mmsa_cache.features.bank import FeatureBank

Weights = NDArray[np.float64]


def attention_setting(ensemble: Ensemble) -> int | None:
    """Index of the first setting whose text tokens attend to patches; None if there is none."""
    for index, blend in enumerate(ensemble.blends):
        if blend.setting.level == "tokens" and _has_attention(blend.members[0]):
            return index
    return None


def _has_attention(model: object) -> bool:
    return isinstance(model, MultimodalClassifier) and isinstance(
        model.fusion, Attention | AttentionConcat | AttentionCombine | EncoderFusion
    )


def attention_map(
    members: Sequence[torch.nn.Module], setting: Setting, bank: FeatureBank, sample: int
) -> Weights:
    """Attention of a sample's text tokens to its patches.

    The mean over members and heads, for the fusion ``encoder`` also over layers. There text tokens
    attend to text too; only the weights of patches are used, rescaled to sum to 1 for each token.

    Args:
        members: Trained models of the setting, see `attention_setting`.
        setting: Their setting.
        bank: The features.
        sample: Index of the sample.

    Returns:
        (text_tokens, patches)
    """
    batch = gather_batch(bank, bank.items([sample], variants=False), setting)
    tokens, patches = batch.text.shape[1], batch.image.shape[1]
    maps = []
    with torch.inference_mode(), matmul_precision(setting):
        for member in members:
            member.eval()
            _, out = member(*model_inputs(batch), need_weights=True)
            weights = out["attention"][0].double()
            if weights.ndim == 3:  # (layers, positions, positions) over text and patches
                weights = weights.mean(0)[:tokens, tokens:]
            maps.append(weights.reshape(tokens, patches).cpu().numpy())
    mean: Weights = np.mean(maps, axis=0)
    total = mean.sum(1, keepdims=True)
    return np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)


def average_words(weights: Weights, words: Sequence[tuple[str, Sequence[int]]]) -> Weights:
    """Averages weights over the tokens of each word, (words, patches).

    Args:
        weights: (text_tokens, patches)
        words: Each word with the positions of its tokens.
    """
    return np.stack([weights[list(positions)].mean(0) for _, positions in words])
