"""Inputs of the ONNX graph.

The graph reads cached features as float32 and returns calibrated class probabilities. Its inputs
are those that the settings of the model need:

==================  =========================================================================
``text``            (batch, text_tokens, dim): tokens, at the token level
``text_mask``       (batch, text_tokens) bool, True = real token
``image``           (batch, patches, dim): patches, at the token level without a grid
``image_mask``      (batch, patches) bool
``image_grid_G``    (batch, G·G, dim): patches averaged to a G×G grid (`ModalityFeatures.grid`)
``text_POOL``       (batch, dim): a pooled vector, as ``text_mean``; the image's likewise;
                    of another encoder it is ``text_ENCODER:POOL``
``text_present``    (batch,) bool: the post has a text; its other inputs may be zeros if not
``image_present``   (batch,) bool
==================  =========================================================================

`onnx_inputs` makes them from a feature bank. Standardisation, averages over members and settings,
temperature and biases are part of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fuse.models.kernel import KERNEL
from fuse.models.projection import as_mask
from fuse.setting import Setting
from fuse.training.classifier import gather_batch
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import split_terms

AXES = {"text": "text_tokens", "image": "patches"}
Inputs = dict[str, NDArray[Any]]


def onnx_inputs(
    bank: FeatureBank, samples: NDArray[np.int64], settings: Sequence[Setting]
) -> Inputs:
    """The inputs of the graph of some settings, by name.

    Args:
        bank: The features; a post may lack a modality.
        samples: Sample indices.
        settings: The settings of the model, in order.
    """
    items = bank.items(samples, variants=False)
    inputs: dict[str, Tensor] = {}
    for setting in settings:
        batch = gather_batch(bank, items, setting)
        for modality in read_modalities(setting):
            mask = as_mask(getattr(batch, modality), getattr(batch, f"{modality}_mask"))
            inputs[f"{modality}_present"] = mask.any(1)
            if reads_sequences(setting):
                name = sequence_name(setting, modality)
                inputs[name] = getattr(batch, modality).float()
                if name == modality:
                    inputs[f"{modality}_mask"] = mask
            if reads_vectors(setting):
                inputs |= {
                    name: vector.float()
                    for name, vector in batch.vectors.items()
                    if name.startswith(f"{modality}_")
                }
    return {name: value.cpu().numpy() for name, value in sorted(inputs.items())}


def read_modalities(setting: Setting) -> list[str]:
    return list(AXES) if setting.modality == "both" else [setting.modality]


def pool_names(setting: Setting, modality: str) -> list[str]:
    return split_terms(getattr(setting, f"{modality}_pool"))


def reads_sequences(setting: Setting) -> bool:
    return setting.level == "tokens" and setting.fusion != KERNEL


def reads_vectors(setting: Setting) -> bool:
    return not reads_sequences(setting) or setting.beside


def sequence_name(setting: Setting, modality: str) -> str:
    return f"image_grid_{setting.grid}" if modality == "image" and setting.grid else modality
