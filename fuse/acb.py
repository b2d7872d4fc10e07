"""The report's adaptive class-balanced (ACB) loss.

Symbols: p_t is the predicted probability of a sample's true class, p₁ and p₂ the highest and the
second highest predicted probability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .loss import Loss, check_not_negative, focal_terms, log_probabilities, true_class

STATISTICS: tuple[str, ...] = ("running", "epoch", "batch")
MARGINS: tuple[str, ...] = ("batch", "sample")


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
        check_not_negative("alpha", alpha)
        check_not_negative("beta", beta)
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
        log_p = log_probabilities(logits, labels)
        log_pt = true_class(log_p, labels)
        if self.training:
            self._count(log_pt.detach(), labels)
        weights, gammas = (per_class.to(log_p.dtype) for per_class in self.weights_and_gammas())
        focal = (weights[labels] * focal_terms(log_pt, gammas[labels])).mean()
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
