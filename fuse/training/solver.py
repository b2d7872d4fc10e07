"""A member whose features are fixed, trained to the optimum: full-batch L-BFGS in place of steps.

With features f of rows i, row weights r (1; with ``copies = "one"`` 1 / (1 + copies) of its post),
class weights c (those of ``weighted_ce``; 1 of ``ce``) and n = Σ r, the sum of the posts, this is
minimised, which is convex:

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
from .programs import model_inputs
from .rates import make_optimiser
from .runner import Runner
from .scoring import Scores

_ROWS = 1024
"""Of a pass that makes features."""
_SCALE = 2.0
"""Of features, so that the weights and the bias bend the loss alike: a third of the steps."""


class Solver:
    """Trains one member in one epoch.

    Args:
        runner: Of a setting with ``optimiser = "lbfgs"``.
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
        rows = torch.ones(len(labels), dtype=torch.float64)
        if self._runner.setting.copies == "one":
            rows = row_weights(self._runner.items)
        rows = rows.to(labels.device)
        of_class = None if loss.class_weights is None else loss.class_weights.double()
        divisor = (rows if of_class is None else rows * of_class[labels]).sum()
        ridge = self._runner.setting.ridge * _SCALE**2 / rows.sum()
        weight, bias = (
            nn.Parameter(torch.zeros_like(p, dtype=torch.float64))
            for p in (model.weight.weight, model.weight.bias)
        )
        optimiser = make_optimiser(self._runner.setting, [weight, bias])

        def value() -> Tensor:
            optimiser.zero_grad()
            logits = linear(features, weight.float(), bias.float()).double()
            each = F.cross_entropy(
                logits, labels, of_class, reduction="none", label_smoothing=loss.label_smoothing
            )
            found = (rows * each).sum() / divisor + 0.5 * ridge * weight.square().sum()
            found.backward()
            return found

        optimiser.step(lambda: value().item())
        with torch.no_grad():
            model.weight.weight.copy_(weight * (_SCALE / model.scale))
            model.weight.bias.copy_(bias)
        model.fold()
        return value().detach()[None]

    @torch.no_grad()
    def _features(self, model: KernelClassifier) -> tuple[Tensor, Tensor]:
        """Those of all rows, (rows, features) float32, and their labels."""
        runner = self._runner
        own = runner.fit_landmarks()
        items, labels = runner.items, runner.bank.labels
        labels = labels[items[:, 0].to(labels.device)]
        # The landmarks are the rows, in order; where all are whole they are fused already.
        if own is not None and len(own) == len(items) and bool((items >= 0).all()):
            return own, labels
        batches = (gather_batch(runner.bank, some, runner.setting) for some in items.split(_ROWS))
        return torch.cat([model.fuse(model_inputs(batch))[0] for batch in batches]), labels

    def scores(self, losses: Tensor) -> list[tuple[float, Scores]]:
        """See `StackScores`."""
        return [(losses.item(), self._runner.scores)]
