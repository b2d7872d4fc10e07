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
from fuse.training.programs import model_inputs
from mmsa_cache.features.bank import FeatureBank

Weights = NDArray[np.float64]


def mapped_setting(ensemble: Ensemble) -> int | None:
    """Place of the first setting whose words attend to patches; None where there is none."""
    for place, blend in enumerate(ensemble.blends):
        if blend.setting.level == "tokens" and _attends(blend.members[0]):
            return place
    return None


def _attends(model: object) -> bool:
    return isinstance(model, MultimodalClassifier) and isinstance(
        model.fusion, Attention | AttentionConcat | AttentionCombine | EncoderFusion
    )


def word_to_patch(
    members: Sequence[torch.nn.Module], setting: Setting, bank: FeatureBank, sample: int
) -> Weights:
    """Attention of a sample's text tokens to its patches.

    Mean over members and heads, of the encoder also over layers. Its words attend to words as well;
    only what goes to patches is kept, so that each token's weights sum to 1 as elsewhere.

    Args:
        members: Trained models of the setting, see `mapped_setting`.
        setting: Their setting.
        bank: The features.
        sample: Index of the sample.

    Returns:
        (text_tokens, patches)
    """
    batch = gather_batch(bank, bank.items([sample], variants=False), setting)
    tokens, patches = batch.text.shape[1], batch.image.shape[1]
    found = []
    with torch.inference_mode(), matmul_precision(setting):
        for member in members:
            member.eval()
            _, out = member(*model_inputs(batch), need_weights=True)
            weights = out["attention"][0].double()
            if weights.ndim == 3:  # (layers, positions, positions) over text and patches
                weights = weights.mean(0)[:tokens, tokens:]
            found.append(weights.reshape(tokens, patches).cpu().numpy())
    mean: Weights = np.mean(found, axis=0)
    total = mean.sum(1, keepdims=True)
    return np.divide(mean, total, out=np.zeros_like(mean), where=total > 0)


def by_word(weights: Weights, words: Sequence[tuple[str, Sequence[int]]]) -> Weights:
    """Mean weights over the tokens of each word, (words, patches).

    Args:
        weights: (text_tokens, patches)
        words: A word and the places of its tokens.
    """
    return np.stack([weights[list(places)].mean(0) for _, places in words])
