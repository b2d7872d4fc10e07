"""Models of settings: how they are built, fed from a bank and used for prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuse.models.builder import build_model
from fuse.models.classifier import Classifier
from fuse.models.kernel import KERNEL, KernelClassifier
from fuse.models.modality import modality_of
from fuse.setting import Setting
from mmsa_cache.errors import SettingsError
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Batch, Dims
from mmsa_cache.native import float32

from .member import model_inputs

_PREDICTED_ROWS = 128
"""Rows of a forward pass without gradients."""
_PREDICTED_ROWS_KERNEL = 2048
"""The same for a kernel model, which standardises its landmarks in each pass."""
_PREDICTED_ROWS_CUDA = {"pooled": 4096, "tokens": 512}
"""The same on a GPU by level: launching a small pass takes longer than its work."""


def make_model(setting: Setting, dims: Dims, classes: int, rows: int | None = None) -> Classifier:
    """Builds the model of a setting for features of these lengths.

    Args:
        setting: What to build.
        dims: Features of the inputs.
        classes: Number of classes.
        rows: Number of training rows, which limits the landmarks of a kernel model; default: no
            limit.

    Raises:
        SettingsError: The setting makes no model.
    """
    try:
        if setting.fusion == KERNEL:
            return KernelClassifier(
                {
                    n: d
                    for n, d in dims.vectors.items()
                    if setting.modality in ("both", modality_of(n))
                },
                classes,
                setting.landmarks if rows is None else min(setting.landmarks, rows),
                setting.dropout,
                setting.kernel,
                setting.bandwidth,
                setting.image_weight,
                setting.other_weight,
            )
        return build_model(
            fusion=setting.fusion,
            modality=setting.modality,
            text_in=dims.text,
            image_in=dims.image,
            text_dim=setting.text_dim,
            image_dim=setting.image_dim,
            classes=classes,
            dropout=setting.dropout,
            input_dropout=setting.input_dropout,
            shared_input_dropout=setting.shared_input_dropout,
            modality_dropout=setting.modality_dropout,
            heads=setting.heads,
            layers=setting.layers,
            ffn=setting.ffn,
            rank=setting.rank,
            pooling=setting.pooling,
            text_pooling=setting.text_pooling or None,
            image_pooling=setting.image_pooling or None,
            directions=setting.directions,
            modality_embeddings=setting.has_modality_embeddings,
            norm=setting.norm,
            beside=dims.vectors if setting.beside else {},
            head_dims=setting.head_dims(),
        )
    except ValueError as error:
        raise SettingsError(f"This setting makes no model: {error}") from error


def build(setting: Setting, bank: FeatureBank, names: Sequence[str]) -> Classifier:
    """The untrained model of a setting for the features of a bank; see `make_model`.

    Its `forward` takes text ``(batch, text_tokens, dim)``, text mask, image
    ``(batch, patches, dim)``, image mask (True = real) and pooled vectors by name. It returns
    logits ``(batch, classes)`` and named intermediates.

    Args:
        setting: What to build.
        bank: The features.
        names: Class names.

    Raises:
        SettingsError: The setting makes no model, or the features lack a pool that it reads.
    """
    return make_model(setting, input_dims(bank, setting), len(names))


def predict(
    model: Classifier,
    bank: FeatureBank,
    samples: NDArray[np.int64],
    setting: Setting,
    batch_size: int | None = None,
) -> NDArray[np.float64]:
    """Class probabilities of original samples, (samples, classes) float64.

    Args:
        model: A trained model.
        bank: Features, on the model's device.
        samples: Sample indices.
        setting: The setting of the model.
        batch_size: Rows of a forward pass; default: depends on the device.
    """
    model.eval()
    if batch_size is None:
        batch_size = _PREDICTED_ROWS_KERNEL if setting.fusion == KERNEL else _PREDICTED_ROWS
        if bank.labels.device.type == "cuda":
            batch_size = _PREDICTED_ROWS_CUDA[setting.level]
    bank = bank.using(*setting.encoders)
    items = bank.items(samples, variants=False)
    order = torch.arange(len(items))
    if setting.level == "tokens":  # so that short texts are not padded to the longest
        order = bank.text_order(items)
    parts = []
    with torch.inference_mode(), matmul_precision(setting):
        for rows in order.split(batch_size):
            logits = compute_logits(model, gather_batch(bank, items[rows], setting))
            parts.append(logits.double().softmax(1))
    probabilities = torch.cat(parts).cpu()
    return torch.empty_like(probabilities).index_copy_(0, order, probabilities).numpy()


@contextmanager
def matmul_precision(setting: Setting) -> Iterator[None]:
    """Sets the precision of the factors of matrix products; see `Setting.precision`."""
    fast = _is_fast(setting)
    # Batched products, as in attention, took twice the time in bf16; `linear` is fast without.
    cpu = "bf16" if fast and setting.level == "pooled" else "ieee"
    with float32.matmul_precision(cpu, gpu="tf32" if fast else "ieee"):
        yield


def autocast_dtype(setting: Setting, device: torch.device) -> torch.dtype | None:
    """Type of autocast in training, before the classifier; None: float32 without autocast."""
    half = _is_fast(setting) and setting.level == "tokens" and device.type == "cuda"
    return torch.bfloat16 if half and torch.cuda.is_bf16_supported(False) else None


def _is_fast(setting: Setting) -> bool:
    return setting.precision == "fast" and setting.fusion != KERNEL


def input_dims(bank: FeatureBank, setting: Setting) -> Dims:
    """Features of the inputs that a setting's model reads."""
    return bank.using(*setting.encoders).dims(
        level=setting.level, text_pool=setting.text_pool, image_pool=setting.image_pool
    )


def gather_batch(
    bank: FeatureBank,
    items: Tensor,
    setting: Setting,
    whole_length: bool = False,
    text_length: int | None = None,
) -> Batch:
    """The batch of items for the model of a setting; see `FeatureBank.batch`."""
    return bank.batch(
        items, whole_length=whole_length, text_length=text_length, **bank_options(setting)
    )


def bank_options(setting: Setting) -> dict[str, Any]:
    """Arguments of `FeatureBank.batch` that follow from a setting."""
    return {
        "level": setting.level,
        "text_pool": setting.text_pool,
        "image_pool": setting.image_pool,
        "grid": setting.grid,
    }


def compute_logits(model: Classifier, batch: Batch) -> Tensor:
    """Logits of a batch, (batch, classes)."""
    logits, _ = model(*model_inputs(batch))
    return logits
