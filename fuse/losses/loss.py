"""The interface of a loss, and functions that losses share.

Symbols: p_t is the predicted probability of a sample's true class.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_P_FLOOR = -1e30
"""Floor of log p. It matters only for logits more than 10³⁰ apart, which would give −∞, and 0·∞ in
the gradient."""


class Loss(nn.Module):
    """The interface of losses; see `losses`."""

    def start_epoch(self) -> None:
        """Called by the trainer before the first batch of each epoch."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        raise NotImplementedError


def check_shapes(logits: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless they are ``(batch, classes)`` and ``(batch,)``, and not empty."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[0] == 0:
        raise ValueError(
            "loss: expected logits (batch, classes) and labels (batch,) of at least one sample, "
            f"received {tuple(logits.shape)} and {tuple(labels.shape)}"
        )


def log_probabilities(logits: Tensor, labels: Tensor, shift: Tensor | None = None) -> Tensor:
    """Log-softmax ``(batch, classes)`` in at least float32, never −∞; checks the shapes.

    Args:
        logits: ``(batch, classes)``.
        labels: ``(batch,)``.
        shift: ``(classes,)``, added to the logits.
    """
    check_shapes(logits, labels)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if shift is not None:
        logits = logits + shift
    return F.log_softmax(logits, dim=1).clamp_min(LOG_P_FLOOR)


def true_class(log_p: Tensor, labels: Tensor) -> Tensor:
    """log p_t, ``(batch,)``."""
    return log_p.gather(1, labels.unsqueeze(1)).squeeze(1)


def error_probability(log_pt: Tensor) -> Tensor:
    """1 − p_t, positive, ``(batch,)`` from ``(batch,)``.

    It is −expm1(log p_t), which is accurate near p_t = 1. Its floor keeps gradients of the form
    (1 − p_t)^(γ−1) finite for γ < 1, which would be ∞ at p_t = 1 and 0·∞ after a product.
    """
    return (-torch.expm1(log_pt)).clamp_min(torch.finfo(log_pt.dtype).tiny)


def check_not_negative(name: str, value: float) -> None:
    """Raises ValueError, with the name of the setting, unless the value is finite and ≥ 0."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number ≥ 0, received {value}")
