"""The report's adaptive class-balanced (ACB) loss.

Symbols: p_t is the predicted probability of a sample's true class, p₁ and p₂ the highest and the
second highest predicted probability.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fuse.mapping import call_for_members, is_mapped
from mmsa_cache.names import check_name
from mmsa_cache.native.nvrtc import Kernel

from .acb_kernel import find_kernel, value_and_gradient
from .loss import (
    Loss,
    check_not_negative,
    check_shapes,
    error_probability,
    log_probabilities,
    true_class,
)

Statistics = Literal["running", "epoch", "batch"]
STATISTICS: tuple[Statistics, ...] = get_args(Statistics)
Margin = Literal["batch", "sample"]
MARGINS: tuple[Margin, ...] = get_args(Margin)


class AdaptiveClassBalancedLoss(Loss):
    """Adaptive class-balanced (ACB) loss of the report.

    L = α · (1/N) Σ w_c (1 − p_t)^γ_c (−log p_t) + β · exp(−2 (p₁ − p₂)), with c the true class and

    - d_c = mean of (1 − p_t) over the samples of class c, 0 for a class not seen yet;
    - w_c = 1 + 5·log(1 + d_c) and γ_c = 1.5 + 3·log(1 + d_c), constants in the gradient.

    As in the report's code, in training mode the current batch is first added to the statistics and
    then weighted by them, so the classes of its samples always have a d_c. In eval mode the
    statistics do not change, so the loss of a validation sample does not depend on its batch.

    The statistics are buffers in float64, saved with the state dict.

    Args:
        classes: number of classes, at least 2.
        alpha: weight of the focal part, ≥ 0.
        beta: weight of the margin part, ≥ 0.
        statistics: samples of d_c: ``running``, all since the start of training (the report's
            code); ``epoch``, those since `start_epoch`; ``batch``, those of the current batch (in
            eval mode of the last training batch).
        margin: ``batch``, the exponential of the batch mean of p₁ − p₂ (the report's code);
            ``sample``, the mean of the exponential over the samples (the report's formula).

    Raises:
        ValueError: an unknown name or a figure out of range.
    """

    difficulty_sum: Tensor
    sample_count: Tensor
    codes: Tensor
    """Class codes, ``(classes,)``."""
    constants: Tensor
    """α and β, ``(2,)``."""
    signs: Tensor
    """Signs of the two highest probabilities in the margin, ``(2,)``."""

    def __init__(
        self,
        classes: int,
        alpha: float,
        beta: float,
        statistics: str,
        margin: str,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: the margin needs at least 2, received {classes}")
        check_not_negative("alpha", alpha)
        check_not_negative("beta", beta)
        check_name("statistics", statistics, STATISTICS)
        check_name("margin", margin, MARGINS)
        self.classes = classes
        self.alpha = alpha
        self.beta = beta
        self.statistics = statistics
        self.margin = margin
        self.register_buffer("difficulty_sum", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("sample_count", torch.zeros(classes, dtype=torch.float64))
        self.register_buffer("codes", torch.arange(classes), persistent=False)
        self.register_buffer("constants", torch.tensor([alpha, beta]), persistent=False)
        self.register_buffer("signs", torch.tensor([1.0, -1.0]), persistent=False)

    def start_epoch(self) -> None:
        """Resets the statistics if they are those of an epoch."""
        if self.statistics == "epoch":
            self._reset()

    def difficulty(self) -> Tensor:
        """d_c of each class, ``(classes,)``, float64, in [0, 1]."""
        return self.difficulty_sum / self.sample_count.clamp_min(1.0)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar."""
        if logits.ndim == 2 and logits.shape[1] != self.classes:
            raise ValueError(
                f"loss 'acb' was built for {self.classes} classes, received {logits.shape[1]}"
            )
        compiled = find_kernel(logits)
        if compiled is not None:
            return self._by_kernel(compiled, logits, labels)
        with torch.no_grad():
            log_p = log_probabilities(logits, labels)
            log_pt = true_class(log_p, labels)
            wrong = error_probability(log_pt)
            if self.training:
                self._count(wrong, labels)
            log_difficulty = torch.log1p(self.difficulty()).to(log_p.dtype).gather(0, labels)
            value, gradient = self._value_and_gradient(log_p, log_pt, wrong, labels, log_difficulty)
        if is_mapped(logits):  # five operations fewer than below
            return call_for_members(_WithGradient.apply, logits, value, gradient)
        if logits.device.type != "cpu":
            loss: Tensor = _WithGradient.apply(logits, value, gradient)
            return loss
        # The sum is 0 and only adds the gradient. On the CPU a custom function would cost as much
        # as the loss itself.
        return value + ((logits - logits.detach()) * gradient).sum()

    def _by_kernel(self, compiled: Kernel, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss by the kernel, which computes all members of `vmap` at once."""
        flags = self.training, self.statistics == "batch", self.margin == "sample"

        def members_loss(
            logits: Tensor, labels: Tensor, sums: Tensor, counts: Tensor, constants: Tensor
        ) -> Tensor:
            inputs = logits.detach(), labels, sums, counts, constants
            results = value_and_gradient(compiled, *inputs, flags)
            losses: Tensor = _WithGradient.apply(logits, *results)
            return losses

        check_shapes(logits, labels)
        operands = logits, labels, self.difficulty_sum, self.sample_count, self.constants
        if is_mapped(logits):
            return call_for_members(members_loss, *operands)
        return members_loss(*(operand.unsqueeze(0) for operand in operands)).squeeze(0)

    def _value_and_gradient(
        self, log_p: Tensor, log_pt: Tensor, wrong: Tensor, labels: Tensor, log_difficulty: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss and its gradient, a scalar and ``(batch, classes)``, in one pass.

        The gradient is explicit because autograd took most of the time of the loss, which is a
        tenth of a small model's step on the CPU. For a sample with logits z, probabilities p, true
        class c and most probable classes 1 and 2, with e_i the unit vector of class i:

        - ∂ log p_t / ∂z = e_c − p
        - ∂ (p₁ − p₂) / ∂z = p₁ e₁ − p₂ e₂ − (p₁ − p₂) p

        Args:
            log_p: log p, ``(batch, classes)``.
            log_pt: log p_t, ``(batch,)``.
            wrong: 1 − p_t, ``(batch,)``, positive.
            labels: True classes, ``(batch,)``.
            log_difficulty: log(1 + d_c) of the true classes, ``(batch,)``.
        """
        p = log_p.exp()
        gamma = _gamma(log_difficulty)
        weighted = _weight(log_difficulty) * wrong.pow(gamma) * (self.alpha / len(labels))
        focal = weighted.dot(log_pt)  # negative
        grad_log_pt = weighted * (gamma * log_pt.exp() * log_pt / wrong - 1.0)

        top, classes = p.topk(2)
        margins = top[:, 0] - top[:, 1]
        if self.margin == "batch":
            boundary = factor = torch.exp(-2.0 * margins.mean())
        else:
            factor = torch.exp(-2.0 * margins)
            boundary = factor.mean()
        grad_margin = factor * (-2.0 * self.beta / len(labels))

        gradient = p * -(grad_log_pt + grad_margin * margins).unsqueeze(1)
        gradient = gradient.scatter_add(1, labels.unsqueeze(1), grad_log_pt.unsqueeze(1))
        gradient = gradient.scatter_add(1, classes, self.signs * top * grad_margin.unsqueeze(-1))
        return self.beta * boundary - focal, gradient

    def _count(self, wrong: Tensor, labels: Tensor) -> None:
        """Adds the batch to the statistics; `wrong` is 1 − p_t."""
        if self.statistics == "batch":
            self._reset()
        # A product with one-hot rows, since bincount adds in no fixed order on a GPU.
        one_hot = (labels.unsqueeze(1) == self.codes).to(self.sample_count.dtype)
        self.difficulty_sum += wrong.to(one_hot.dtype) @ one_hot
        self.sample_count += one_hot.sum(dim=0)

    def _reset(self) -> None:
        self.difficulty_sum.zero_()
        self.sample_count.zero_()


class _WithGradient(torch.autograd.Function):
    """A precomputed value, or one a member, with a precomputed gradient."""

    @staticmethod
    def forward(logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad[..., None, None] * gradient, None, None


def _weight(log_difficulty: Tensor) -> Tensor:
    """w_c of log(1 + d_c)."""
    return 1.0 + 5.0 * log_difficulty


def _gamma(log_difficulty: Tensor) -> Tensor:
    """γ_c of log(1 + d_c)."""
    return 1.5 + 3.0 * log_difficulty
