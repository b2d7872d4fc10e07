"""Training of a member with fixed features to the optimum, by full-batch L-BFGS.

With features f of rows i, row weights r (1; with ``copies = "one"`` 1 / (1 + copies of the post)),
class weights c (those of ``weighted_ce``; 1 for ``ce``) and n = Σ r, the number of posts, this
convex function is minimised:

    Σ_i r_i·c_i·CE_i / Σ_i r_i·c_i + ridge/(2·n) · |W|²

The bias is not penalised. scikit-learn's `LogisticRegression` has the same optimum at
C = 1/ridge. Features and products are in float32, sums over rows in float64. Nothing is drawn:
there is no seed, no dropout and no order of rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuse.losses.losses import CrossEntropyLoss
from fuse.models.kernel import KernelClassifier
from fuse.models.linear import linear

from .classifier import gather_batch
from .copies import row_weights
from .member import model_inputs
from .rates import make_optimiser
from .runner import Runner
from .scoring import Scores

_ROWS = 1024
"""Rows of a pass that computes features."""
_SCALE = 2.0
"""Scale of features at which weights and bias have similar curvature: a third of the steps."""


class Solver:
    """Trains one member in one epoch.

    Args:
        runner: Runner of a setting with ``optimiser = "lbfgs"``.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def epoch(self, number: int) -> Tensor:
        """See `Stack.epoch`; the loss is that of the optimum, with its penalty."""
        model, loss = self._runner.member.train().model, self._runner.member.loss
        assert isinstance(model, KernelClassifier)
        assert isinstance(loss, CrossEntropyLoss)
        features, labels = self._features(model)
        features = features.mul_(_SCALE / model.scale).contiguous()  # by columns is slower
        weights = torch.ones(len(labels), dtype=torch.float64)
        if self._runner.setting.copies == "one":
            weights = row_weights(self._runner.items)
        weights = weights.to(labels.device)
        class_weights = None if loss.class_weights is None else loss.class_weights.double()
        divisor = (weights if class_weights is None else weights * class_weights[labels]).sum()
        ridge = self._runner.setting.ridge * _SCALE**2 / weights.sum()
        weight, bias = (
            nn.Parameter(torch.zeros_like(p, dtype=torch.float64))
            for p in (model.weight.weight, model.weight.bias)
        )
        optimiser = make_optimiser(self._runner.setting, [weight, bias])

        def backward() -> Tensor:
            optimiser.zero_grad()
            logits = linear(features, weight.float(), bias.float()).double()
            losses = F.cross_entropy(
                logits,
                labels,
                class_weights,
                reduction="none",
                label_smoothing=loss.label_smoothing,
            )
            total = (weights * losses).sum() / divisor + 0.5 * ridge * weight.square().sum()
            total.backward()
            return total

        optimiser.step(lambda: backward().item())
        with torch.no_grad():
            model.weight.weight.copy_(weight * (_SCALE / model.scale))
            model.weight.bias.copy_(bias)
        model.fold()
        return backward().detach()[None]

    @torch.no_grad()
    def _features(self, model: KernelClassifier) -> tuple[Tensor, Tensor]:
        """The features of all rows, (rows, features) float32, and their labels."""
        runner = self._runner
        landmarks = runner.fit_landmarks()
        items, labels = runner.items, runner.bank.labels
        labels = labels[items[:, 0].to(labels.device)]
        # If all rows are landmarks, and none lacks a modality, their features are known.
        if landmarks is not None and len(landmarks) == len(items) and bool((items >= 0).all()):
            return landmarks, labels
        batches = (gather_batch(runner.bank, some, runner.setting) for some in items.split(_ROWS))
        return torch.cat([model.fuse(model_inputs(batch))[0] for batch in batches]), labels

    def scores(self, losses: Tensor) -> list[tuple[float, Scores]]:
        """See `StackScores`."""
        return [(losses.item(), self._runner.scores)]
