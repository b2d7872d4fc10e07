"""Scores of validation rows at the end of an epoch: of one member, or of a stack in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuse.figures.metrics import metric_scores, selection_score
from fuse.figures.records import MetricScores
from fuse.models.classifier import Classifier, Inputs
from fuse.models.cloning import clone
from fuse.setting import Setting
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Batch

from .classifier import compute_logits, gather_batch, matmul_precision, predict
from .programs import model_inputs, stacked_inputs

Scores = Callable[[], MetricScores | None]
"""Gives the scores of a member, None without validation rows; not before they are asked for, since
a member that diverged has none."""

_ROWS = {"pooled": 1 << 15, "tokens": 1 << 10}
"""Of all members in a pass by level, or twice those of a step: without gradients they take less."""
_SMALLEST = float(np.finfo(np.float64).eps)
"""Of a probability whose logarithm is taken, as in `fuse.figures.metrics.log_likelihoods`."""


def score_model(
    model: Classifier,
    bank: FeatureBank,
    rows: NDArray[np.int64],
    setting: Setting,
    fused: Batch | None = None,
) -> MetricScores:
    """Scores of one member.

    Args:
        model: Left in eval mode.
        bank: The features.
        rows: Sample indices, at least one.
        setting: What the model was made of.
        fused: The rows, if they were fused beforehand.
    """
    labels = bank.labels[torch.as_tensor(rows)].cpu().numpy()
    if fused is None:
        return selection_score(labels, predict(model, bank, rows, setting))
    with torch.inference_mode(), matmul_precision(setting):
        logits = compute_logits(model.eval(), fused)
    return selection_score(labels, logits.double().softmax(1).cpu().numpy())


class StackScores:
    """Scores of all members of a stack, each on rows of its own, with one copy to the host.

    Args:
        model: What is scored of the first member.
        setting: What the models were made of.
        bank: The features.
        held_out: The rows of every member, of `FeatureBank.items`.
        parameters: Of what is scored, by name in a classifier, (members, *shape) each.
        buffers: Likewise.
    """

    def __init__(
        self,
        model: Classifier,
        setting: Setting,
        bank: FeatureBank,
        held_out: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
    ) -> None:
        self._setting, self._bank, self._members = setting, bank, len(held_out)
        self._alone, self._skeleton = model, clone(model, "meta").eval()
        self._tensors = {**parameters}, {**buffers}
        self._counts = [len(rows) for rows in held_out]
        self._passes = list(self._cut(held_out)) if any(self._counts) else []

    def __call__(self, losses: Tensor) -> list[tuple[float, Scores]]:
        """The loss, given as (members,), and the scores of every member."""
        found = losses.double()[:, None]
        with torch.no_grad():
            tallies = [self._tally(*given) for given in self._passes]
            if tallies:
                found = torch.cat([found, torch.stack(tallies).sum(0)], 1)
        return [
            (loss, partial(_scores, tally, count))
            for (loss, *tally), count in zip(found.tolist(), self._counts, strict=True)
        ]

    def _cut(self, held_out: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, int]]:
        """What each pass takes: rows (members · rows, 3), which are real (members, rows), and the
        positions of their longest text.
        """
        device, level = self._bank.labels.device, self._setting.level
        most = max(self._counts)
        if level == "tokens":  # short texts need no padding to the longest
            held_out = [rows[self._bank.text_order(rows)] for rows in held_out]
        some = max(held_out, key=len)[:1]  # fills up the rows of members that have fewer
        filled = [torch.cat([rows, some.expand(most - len(rows), -1)]) for rows in held_out]
        every = torch.stack(filled)
        real = torch.arange(most) < torch.tensor(self._counts)[:, None]
        lengths = self._bank.text.lengths(every[..., 1].clamp_min(0)).cpu()
        size = max(_ROWS[level] // self._members, 2 * self._setting.batch_size)
        for rows, there, of in zip(
            every.split(size, 1), real.split(size, 1), lengths.split(size, 1), strict=True
        ):
            yield rows.flatten(0, 1).to(device), there.to(device), max(1, int(of.max()))

    def _tally(self, items: Tensor, real: Tensor, length: int) -> Tensor:
        """The sum of the true classes' log-probabilities, and rows by true and predicted class.

        Returns:
            (members, 1 + classes²) float64.
        """
        batch = gather_batch(self._bank, items, self._setting, True, length)
        logits = self._logits(batch)
        labels = batch.labels.view(self._members, -1)
        likely = logits.double().softmax(2)
        classes = likely.shape[2]
        of_true = likely.gather(2, labels.unsqueeze(2)).squeeze(2).clamp_min(_SMALLEST).log()
        cells = labels * classes + likely.argmax(2)
        counted = likely.new_zeros(self._members, classes**2)
        counted.scatter_add_(1, cells, real.double())  # whole numbers: the order is all the same
        return torch.cat([torch.where(real, of_true, 0.0).sum(1, keepdim=True), counted], 1)

    def _logits(self, batch: Batch) -> Tensor:
        """(members, rows, classes)."""
        if self._members == 1:
            return compute_logits(self._alone.eval(), batch).unsqueeze(0)
        members = stacked_inputs(model_inputs(batch), self._members)
        found: Tensor = torch.func.vmap(self._one)(*self._tensors, *members)
        return found

    def _one(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        sequences: dict[str, Tensor],
        vectors: dict[str, Tensor],
    ) -> Tensor:
        inputs = tuple(Inputs.of(sequences, vectors))
        logits: Tensor
        logits, _ = torch.func.functional_call(self._skeleton, (parameters, buffers), inputs)
        return logits


def _scores(tally: Sequence[float], rows: int) -> MetricScores | None:
    """Of one member, from what `StackScores` counts."""
    if not rows:
        return None
    classes = math.isqrt(len(tally) - 1)
    return metric_scores(np.reshape(tally[1:], (classes, classes)), tally[0] / rows)
