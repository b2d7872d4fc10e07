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

from .acb_kernel import find_kernel, value_and_slope
from .loss import Loss, check_not_negative, check_shapes, log_probabilities, not_true, true_class

Statistics = Literal["running", "epoch", "batch"]
STATISTICS: tuple[Statistics, ...] = get_args(Statistics)
Margin = Literal["batch", "sample"]
MARGINS: tuple[Margin, ...] = get_args(Margin)


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
    codes: Tensor
    """Of the classes, ``(classes,)``."""
    constants: Tensor
    """α and β, ``(2,)``."""
    signs: Tensor
    """Of the two highest probabilities in the margin, ``(2,)``."""

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
        """Forgets the samples seen so far if the statistics are those of an epoch."""
        if self.statistics == "epoch":
            self._forget()

    def difficulty(self) -> Tensor:
        """d_c of every class, ``(classes,)``, float64, in [0, 1]."""
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
            wrong = not_true(log_pt)
            if self.training:
                self._count(wrong, labels)
            log_difficulty = torch.log1p(self.difficulty()).to(log_p.dtype).gather(0, labels)
            value, slope = self._value_and_slope(log_p, log_pt, wrong, labels, log_difficulty)
        if is_mapped(logits):  # five operations fewer, as below
            return call_for_members(_WithSlope.apply, logits, value, slope)
        if logits.device.type != "cpu":
            found: Tensor = _WithSlope.apply(logits, value, slope)
            return found
        # Adds nothing but the gradient; a custom function costs as much as the loss itself.
        return value + ((logits - logits.detach()) * slope).sum()

    def _by_kernel(self, compiled: Kernel, logits: Tensor, labels: Tensor) -> Tensor:
        """The same by the kernel, which takes all members that are mapped over at once."""
        flags = self.training, self.statistics == "batch", self.margin == "sample"

        def of_all(
            logits: Tensor, labels: Tensor, sums: Tensor, counts: Tensor, constants: Tensor
        ) -> Tensor:
            given = logits.detach(), labels, sums, counts, constants
            found: Tensor = _WithSlope.apply(logits, *value_and_slope(compiled, *given, flags))
            return found

        check_shapes(logits, labels)
        operands = logits, labels, self.difficulty_sum, self.sample_count, self.constants
        if is_mapped(logits):
            return call_for_members(of_all, *operands)
        return of_all(*(operand.unsqueeze(0) for operand in operands)).squeeze(0)

    def _value_and_slope(
        self, log_p: Tensor, log_pt: Tensor, wrong: Tensor, labels: Tensor, log_difficulty: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss and its gradient, a scalar and ``(batch, classes)``, in one pass.

        The gradient is written out because autograd took most of the loss's time, which is a tenth
        of a small model's step on the CPU. Of a sample with logits z and probabilities p, e_i being
        the unit vector of class i, c its true class and 1 and 2 its two most probable ones:

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
        of_log_pt = weighted * (gamma * log_pt.exp() * log_pt / wrong - 1.0)

        top, places = p.topk(2)
        margins = top[:, 0] - top[:, 1]
        if self.margin == "batch":
            boundary = edge = torch.exp(-2.0 * margins.mean())
        else:
            edge = torch.exp(-2.0 * margins)
            boundary = edge.mean()
        of_margin = edge * (-2.0 * self.beta / len(labels))

        slope = p * -(of_log_pt + of_margin * margins).unsqueeze(1)
        slope = slope.scatter_add(1, labels.unsqueeze(1), of_log_pt.unsqueeze(1))
        slope = slope.scatter_add(1, places, self.signs * top * of_margin.unsqueeze(-1))
        return self.beta * boundary - focal, slope

    def _count(self, wrong: Tensor, labels: Tensor) -> None:
        """Counts the batch, of which 1 − p_t is given, into the statistics."""
        if self.statistics == "batch":
            self._forget()
        # A product with one-hot rows, not bincount: that adds in no fixed order on a GPU.
        member = (labels.unsqueeze(1) == self.codes).to(self.sample_count.dtype)
        self.difficulty_sum += wrong.to(member.dtype) @ member
        self.sample_count += member.sum(dim=0)

    def _forget(self) -> None:
        self.difficulty_sum.zero_()
        self.sample_count.zero_()


class _WithSlope(torch.autograd.Function):
    """A value, or one a member, whose gradient is given."""

    @staticmethod
    def forward(logits: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad[..., None, None] * slope, None, None


def _weight(log_difficulty: Tensor) -> Tensor:
    """w_c of log(1 + d_c)."""
    return 1.0 + 5.0 * log_difficulty


def _gamma(log_difficulty: Tensor) -> Tensor:
    """γ_c of log(1 + d_c)."""
    return 1.5 + 3.0 * log_difficulty
