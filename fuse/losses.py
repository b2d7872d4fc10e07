"""Losses with one interface: ``loss(logits, labels)`` is a scalar, ``start_epoch()`` a new epoch.

``logits`` are ``(batch, classes)`` in any floating dtype, ``labels`` are ``(batch,)`` class codes
in int64. Everything is computed in at least float32 from log-softmax. For finite logits neither the
value nor the gradient is ever NaN or infinite, unless a weight as large as 1e8 makes it so. No loss
waits for the device, and all work under `torch.func.vmap` with their buffers stacked.

Symbols: p_t is the predicted probability of a sample's true class, p₁ and p₂ the highest and the
second highest predicted probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOSSES: tuple[str, ...] = ("acb", "ce", "weighted_ce", "focal", "logit_adjusted")
STATISTICS: tuple[str, ...] = ("running", "epoch", "batch")
MARGINS: tuple[str, ...] = ("batch", "sample")

LOG_P_FLOOR = -1e30
"""Floor of log p. Only logits further apart than 10³⁰ reach it; without it they would give −∞ and,
in the gradient, 0·∞."""


class Loss(nn.Module):
    """The interface; see the module's docstring."""

    def start_epoch(self) -> None:
        """Called by the trainer before the first batch of every epoch."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        raise NotImplementedError


class CrossEntropyLoss(Loss):
    """Cross-entropy, −log p_t, averaged with the weights of the true classes.

    With weights w the value is Σ w_y (−log p_t) / Σ w_y, as in PyTorch's `nn.CrossEntropyLoss`.
    With label smoothing ε the target is 1 − ε + ε/C for the true class and ε/C for the C − 1
    others (Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7), each class's
    term with the weight of that class; the divisor stays Σ w_y.

    Args:
        class_weights: ``(classes,)``, positive; None weighs all classes alike.
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
        log_p = _log_probabilities(logits, labels)
        weights = torch.ones_like(log_p[0])
        if self.class_weights is not None:
            weights = self.class_weights.to(log_p.dtype)
        weighted = log_p * weights
        total = weights.gather(0, labels).sum()
        value = -_true_class(weighted, labels).sum() / total
        if self.label_smoothing == 0:
            return value
        uniform = -weighted.mean(dim=1).sum() / total
        return (1.0 - self.label_smoothing) * value + self.label_smoothing * uniform


class LogitAdjustedLoss(Loss):
    """Cross-entropy of logits + τ · log π, π the class priors, averaged over the samples.

    Menon et al. 2021, "Long-tail learning via logit adjustment", eq. 10. The model learns logits
    without the priors; they are predicted from as they are.

    Args:
        class_priors: ``(classes,)``, positive: shares or counts, only their ratios matter.
        tau: τ ≥ 0; 1 aims at the balanced error, 0 is plain cross-entropy.

    Raises:
        ValueError: a prior is not positive and finite, or `tau` is negative or not finite.
    """

    log_prior: Tensor

    def __init__(self, class_priors: Tensor | Sequence[float], tau: float = 1.0) -> None:
        super().__init__()
        _check_not_negative("tau", tau)
        self.tau = tau
        self.register_buffer("log_prior", _per_class("class_priors", class_priors).log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        log_p = _log_probabilities(logits, labels, self.tau * self.log_prior)
        return -_true_class(log_p, labels).mean()


class FocalLoss(Loss):
    """Mean of (1 − p_t)^γ (−log p_t): Lin et al. 2017, "Focal Loss for Dense Object Detection".

    Args:
        gamma: focusing exponent, ≥ 0; 0 is plain cross-entropy.

    Raises:
        ValueError: `gamma` is negative or not finite.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        _check_not_negative("gamma", gamma)
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        log_pt = _true_class(_log_probabilities(logits, labels), labels)
        return _focal(log_pt, torch.full_like(log_pt, self.gamma)).mean()


class AdaptiveClassBalancedLoss(Loss):
    """Adaptive class-balanced (ACB) loss of the report.

    L = α · (1/N) Σ w_c (1 − p_t)^γ_c (−log p_t) + β · exp(−2 (p₁ − p₂)), with c the true class and

    - d_c = mean of (1 − p_t) over the samples of class c, 0 for a class not seen yet;
    - w_c = 1 + 5·log(1 + d_c) and γ_c = 1.5 + 3·log(1 + d_c), constants for the gradient.

    Order, as in the report's code: in training mode the current batch is first counted into the
    statistics, then weighted with them, so its own samples always have a d_c. In eval mode the
    statistics are used as they stand and not changed: the loss of a validation sample then does
    not depend on the batch that it is in.

    The statistics are buffers in float64: they are saved and resumed with the state dict.

    Args:
        classes: number of classes, at least 2.
        alpha: weight of the focal part, ≥ 0.
        beta: weight of the margin part, ≥ 0.
        statistics: over which samples d_c is taken: ``running``, all since the start of training
            (the report's code); ``epoch``, those since `start_epoch`; ``batch``, those of the
            current batch (in eval mode: of the last training batch).
        margin: ``batch`` puts the batch mean of p₁ − p₂ into the exponential (the report's code),
            ``sample`` averages the exponential over the samples (the report's formula).

    Raises:
        ValueError: an unknown name or a figure out of range.
    """

    difficulty_sum: Tensor
    sample_count: Tensor

    def __init__(
        self,
        classes: int,
        alpha: float = 0.25,
        beta: float = 0.75,
        statistics: str = "running",
        margin: str = "batch",
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: the margin needs at least 2, received {classes}")
        _check_not_negative("alpha", alpha)
        _check_not_negative("beta", beta)
        if statistics not in STATISTICS:
            raise ValueError(f"unknown statistics {statistics!r}; valid: {', '.join(STATISTICS)}")
        if margin not in MARGINS:
            raise ValueError(f"unknown margin {margin!r}; valid: {', '.join(MARGINS)}")
        self.classes = classes
        self.alpha = alpha
        self.beta = beta
        self.statistics = statistics
        self.margin = margin
        self.register_buffer("difficulty_sum", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("sample_count", torch.zeros(classes, dtype=torch.float64))

    def start_epoch(self) -> None:
        """Forgets the samples seen so far if the statistics are those of an epoch."""
        if self.statistics == "epoch":
            self._forget()

    def difficulty(self) -> Tensor:
        """d_c of every class, ``(classes,)``, float64, in [0, 1]."""
        return self.difficulty_sum / self.sample_count.clamp_min(1.0)

    def weights_and_gammas(self) -> tuple[Tensor, Tensor]:
        """w_c in [1, 4.47] and γ_c in [1.5, 3.58] of every class, ``(classes,)`` each, float64."""
        log_difficulty = torch.log1p(self.difficulty())
        return 1.0 + 5.0 * log_difficulty, 1.5 + 3.0 * log_difficulty

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        if logits.ndim == 2 and logits.shape[1] != self.classes:
            raise ValueError(
                f"loss 'acb' was built for {self.classes} classes, received {logits.shape[1]}"
            )
        log_p = _log_probabilities(logits, labels)
        log_pt = _true_class(log_p, labels)
        if self.training:
            self._count(log_pt.detach(), labels)
        weights, gammas = (per_class.to(log_p.dtype) for per_class in self.weights_and_gammas())
        focal = (weights[labels] * _focal(log_pt, gammas[labels])).mean()
        top = log_p.exp().topk(2, dim=1).values
        margins = top[:, 0] - top[:, 1]
        if self.margin == "batch":
            boundary = torch.exp(-2.0 * margins.mean())
        else:
            boundary = torch.exp(-2.0 * margins).mean()
        return self.alpha * focal + self.beta * boundary

    @torch.no_grad()
    def _count(self, log_pt: Tensor, labels: Tensor) -> None:
        """Counts the batch into the statistics."""
        if self.statistics == "batch":
            self._forget()
        # A product with one-hot rows, not bincount: that adds in no fixed order on a GPU.
        codes = torch.arange(self.classes, device=labels.device)
        member = (labels.unsqueeze(1) == codes).to(self.sample_count.dtype)
        self.difficulty_sum += -torch.expm1(log_pt.to(member.dtype)) @ member
        self.sample_count += member.sum(dim=0)

    def _forget(self) -> None:
        self.difficulty_sum.zero_()
        self.sample_count.zero_()


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
    """Builds a loss by name; a setting that the loss does not have is not used.

    Args:
        name: one of `LOSSES`.
        classes: number of classes.
        alpha: of ``acb``.
        beta: of ``acb``.
        statistics: of ``acb``.
        margin: of ``acb``.
        gamma: of ``focal``.
        label_smoothing: of ``ce`` and ``weighted_ce``.
        tau: of ``logit_adjusted``.
        class_weights: of ``weighted_ce``, which requires them: ``(classes,)``.
        class_priors: of ``logit_adjusted``, which requires them: ``(classes,)``, shares or counts
            of the training rows.

    Raises:
        ValueError: unknown name (the message lists the valid ones) or a setting out of range.
    """
    if name == "acb":
        return AdaptiveClassBalancedLoss(classes, alpha, beta, statistics, margin)
    if name == "ce":
        return CrossEntropyLoss(None, label_smoothing)
    if name == "weighted_ce":
        given = _required(name, "class_weights", class_weights, classes)
        return CrossEntropyLoss(given, label_smoothing)
    if name == "focal":
        return FocalLoss(gamma)
    if name == "logit_adjusted":
        return LogitAdjustedLoss(_required(name, "class_priors", class_priors, classes), tau)
    raise ValueError(f"unknown loss {name!r}; valid: {', '.join(LOSSES)}")


def _required(
    loss: str, name: str, values: Tensor | Sequence[float] | None, classes: int
) -> Tensor | Sequence[float]:
    """The values; an error if a number a class is not there."""
    if values is None or len(values) != classes:
        received = "none" if values is None else str(len(values))
        raise ValueError(f"loss {loss!r} needs {name}: expected {classes}, received {received}")
    return values


def _per_class(name: str, values: Tensor | Sequence[float]) -> Tensor:
    """The values as ``(classes,)`` in float32, checked to be positive and finite."""
    tensor = torch.as_tensor(values, dtype=torch.float32).detach().clone()
    if tensor.ndim != 1 or not bool(((tensor > 0) & tensor.isfinite()).all()):
        raise ValueError(
            f"{name}: expected one positive finite number a class, received {tensor.tolist()}"
        )
    return tensor


def _log_probabilities(logits: Tensor, labels: Tensor, shift: Tensor | None = None) -> Tensor:
    """Checks the shapes; log-softmax ``(batch, classes)`` in at least float32, never −∞.

    `shift`, ``(classes,)``, is added to the logits.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or logits.shape[0] == 0:
        raise ValueError(
            "loss: expected logits (batch, classes) and labels (batch,) of at least one sample, "
            f"received {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if shift is not None:
        logits = logits + shift
    return F.log_softmax(logits, dim=1).clamp_min(LOG_P_FLOOR)


def _true_class(log_p: Tensor, labels: Tensor) -> Tensor:
    """log p_t, ``(batch,)``."""
    return log_p.gather(1, labels.unsqueeze(1)).squeeze(1)


def _focal(log_pt: Tensor, gamma: Tensor) -> Tensor:
    """(1 − p_t)^γ (−log p_t), sample by sample, ``(batch,)`` from ``(batch,)`` and ``(batch,)``.

    1 − p_t is −expm1(log p_t), exact near p_t = 1. Its floor keeps the slope γ (1 − p_t)^(γ−1)
    finite for γ < 1, where it would be ∞ at p_t = 1 and 0·∞ after the product.
    """
    wrong = (-torch.expm1(log_pt)).clamp_min(torch.finfo(log_pt.dtype).tiny)
    return wrong.pow(gamma) * -log_pt


def _check_not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a number ≥ 0, received {value}")
