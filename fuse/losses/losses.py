"""All losses by name. ``loss(logits, labels)`` is a scalar, ``start_epoch()`` begins an epoch.

``logits`` are ``(batch, classes)`` in any floating dtype, ``labels`` are ``(batch,)`` class codes
in int64. Losses are computed in at least float32 from log-softmax. For finite logits value and
gradient are finite, unless a weight is as large as 1e8. No loss waits for the device, and all work
under `torch.func.vmap` with stacked buffers.

Symbols: p_t is the predicted probability of a sample's true class.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmsa_cache.names import check_name

from .acb import AdaptiveClassBalancedLoss
from .loss import Loss, check_not_negative, error_probability, log_probabilities, true_class

LOSSES: tuple[str, ...] = ("acb", "ce", "weighted_ce", "focal", "logit_adjusted")


class CrossEntropyLoss(Loss):
    """Cross-entropy, −log p_t, averaged with the weights of the true classes.

    With weights w the value is Σ w_y (−log p_t) / Σ w_y, as in PyTorch's `nn.CrossEntropyLoss`.
    With label smoothing ε the target is 1 − ε + ε/C for the true class and ε/C for the C − 1
    others (Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7). The term of
    each class has the weight of that class; the divisor stays Σ w_y.

    Args:
        class_weights: ``(classes,)``, positive; None: equal weights.
        label_smoothing: ε, in [0, 1].

    Raises:
        ValueError: a weight is not positive and finite, or ε is out of range.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: Tensor | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(
                f"label_smoothing: expected a number in [0, 1], received {label_smoothing}"
            )
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else _per_class("class_weights", class_weights)
        self.register_buffer("class_weights", weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        log_p = log_probabilities(logits, labels)
        weights = torch.ones_like(log_p[0])
        if self.class_weights is not None:
            weights = self.class_weights
        weighted = log_p * weights
        total = weights.gather(0, labels).sum()
        value = -true_class(weighted, labels).sum() / total
        if self.label_smoothing == 0:
            return value
        uniform = -weighted.mean(dim=1).sum() / total
        return (1.0 - self.label_smoothing) * value + self.label_smoothing * uniform


class LogitAdjustedLoss(Loss):
    """Cross-entropy of logits + τ · log π, π the class priors, averaged over the samples.

    Menon et al. 2021, "Long-tail learning via logit adjustment", eq. 10. The model learns logits
    without the priors, which are used unchanged for prediction.

    Args:
        class_priors: ``(classes,)``, positive: shares or counts, only their ratios matter.
        tau: τ ≥ 0; 1 aims at the balanced error, 0 is plain cross-entropy.

    Raises:
        ValueError: a prior is not positive and finite, or `tau` is negative or not finite.
    """

    log_prior: Tensor

    def __init__(self, class_priors: Tensor | Sequence[float], tau: float = 1.0) -> None:
        super().__init__()
        check_not_negative("tau", tau)
        self.tau = tau
        self.register_buffer("log_prior", _per_class("class_priors", class_priors).log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        log_p = log_probabilities(logits, labels, self.tau * self.log_prior)
        return -true_class(log_p, labels).mean()


class FocalLoss(Loss):
    """Mean of (1 − p_t)^γ (−log p_t): Lin et al. 2017, "Focal Loss for Dense Object Detection".

    Args:
        gamma: focusing exponent, ≥ 0; 0 is plain cross-entropy.

    Raises:
        ValueError: `gamma` is negative or not finite.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        check_not_negative("gamma", gamma)
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        log_pt = true_class(log_probabilities(logits, labels), labels)
        return (error_probability(log_pt).pow(self.gamma) * -log_pt).mean()


def build_loss(
    name: str,
    *,
    classes: int = 3,
    alpha: float = 0.25,
    beta: float = 0.75,
    statistics: str = "running",
    margin: str = "batch",
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    tau: float = 1.0,
    class_weights: Tensor | Sequence[float] | None = None,
    class_priors: Tensor | Sequence[float] | None = None,
) -> Loss:
    """Builds a loss by name; options that do not concern it are ignored.

    Args:
        name: one of `LOSSES`.
        classes: number of classes.
        alpha: option of ``acb``.
        beta: option of ``acb``.
        statistics: option of ``acb``.
        margin: option of ``acb``.
        gamma: option of ``focal``.
        label_smoothing: option of ``ce`` and ``weighted_ce``.
        tau: option of ``logit_adjusted``.
        class_weights: ``(classes,)``, required by ``weighted_ce``.
        class_priors: ``(classes,)``, required by ``logit_adjusted``: shares or counts of the
            training rows.

    Raises:
        ValueError: unknown name (the message lists the valid ones) or a setting out of range.
    """
    check_name("loss", name, LOSSES)
    if name == "acb":
        return AdaptiveClassBalancedLoss(classes, alpha, beta, statistics, margin)
    if name == "ce":
        return CrossEntropyLoss(None, label_smoothing)
    if name == "weighted_ce":
        weights = _require_values(name, "class_weights", class_weights, classes)
        return CrossEntropyLoss(weights, label_smoothing)
    if name == "focal":
        return FocalLoss(gamma)
    return LogitAdjustedLoss(_require_values(name, "class_priors", class_priors, classes), tau)


def _require_values(
    loss: str, name: str, values: Tensor | Sequence[float] | None, classes: int
) -> Tensor | Sequence[float]:
    """Returns the values; raises ValueError unless there is one a class."""
    if values is None or len(values) != classes:
        received = "none" if values is None else str(len(values))
        raise ValueError(f"loss {loss!r} needs {name}: expected {classes}, received {received}")
    return values


def _per_class(name: str, values: Tensor | Sequence[float]) -> Tensor:
    """Converts values to ``(classes,)`` float32; checks that they are positive and finite."""
    tensor = torch.as_tensor(values, dtype=torch.float32).detach().clone()
    if tensor.ndim != 1 or not bool(((tensor > 0) & tensor.isfinite()).all()):
        raise ValueError(
            f"{name}: expected one positive finite number a class, received {tensor.tolist()}"
        )
    return tensor
