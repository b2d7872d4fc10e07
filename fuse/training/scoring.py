"""Scores of validation rows at the end of an epoch, of one member or of a stack in one pass."""

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
from .member import model_inputs, stacked_inputs

Scores = Callable[[], MetricScores | None]
"""Computes the scores of a member, None without validation rows. It is only called for members
that have not diverged, since others have none."""

_ROWS = {"pooled": 1 << 15, "tokens": 1 << 10}
"""Rows of a pass by level, of all members together, or twice those of a step if that is more:
without gradients they need less memory."""
_SMALLEST = float(np.finfo(np.float64).eps)
"""Smallest probability before the logarithm, as in `fuse.figures.metrics.log_likelihoods`."""


def score_model(
    model: Classifier,
    bank: FeatureBank,
    rows: NDArray[np.int64],
    setting: Setting,
    fused: Batch | None = None,
) -> MetricScores:
    """Scores of one member.

    Args:
        model: The model; it is left in eval mode.
        bank: The features.
        rows: Sample indices, at least one.
        setting: The setting of the model.
        fused: The rows, if they have been fused already.
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
        model: The model of the first member.
        setting: The setting of the models.
        bank: The features.
        held_out: Validation items of each member, see `FeatureBank.items`.
        parameters: Parameters of the models by name, (members, *shape) each.
        buffers: Their buffers, likewise.
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
        self._model, self._skeleton = model, clone(model, "meta").eval()
        self._tensors = {**parameters}, {**buffers}
        self._counts = [len(items) for items in held_out]
        self._passes = list(self._plan_passes(held_out)) if any(self._counts) else []

    def __call__(self, losses: Tensor) -> list[tuple[float, Scores]]:
        """Loss and scores of each member.

        Args:
            losses: (members,)
        """
        results = losses.double()[:, None]
        with torch.no_grad():
            tallies = [self._tally(*inputs) for inputs in self._passes]
            if tallies:
                results = torch.cat([results, torch.stack(tallies).sum(0)], 1)
        return [
            (loss, partial(_scores, tally, count))
            for (loss, *tally), count in zip(results.tolist(), self._counts, strict=True)
        ]

    def _plan_passes(self, held_out: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, int]]:
        """The inputs of each pass.

        Yields:
            Items (members · rows, 3), which of them are real (members, rows), and the length of the
            longest text.
        """
        device, level = self._bank.labels.device, self._setting.level
        most = max(self._counts)
        if level == "tokens":  # so that short texts are not padded to the longest
            held_out = [items[self._bank.text_order(items)] for items in held_out]
        filler = max(held_out, key=len)[:1]  # for members that have fewer rows
        padded = [torch.cat([items, filler.expand(most - len(items), -1)]) for items in held_out]
        stacked = torch.stack(padded)
        real = torch.arange(most) < torch.tensor(self._counts)[:, None]
        lengths = self._bank.text.lengths(stacked[..., 1].clamp_min(0)).cpu()
        size = max(_ROWS[level] // self._members, 2 * self._setting.batch_size)
        for items, is_real, own_lengths in zip(
            stacked.split(size, 1), real.split(size, 1), lengths.split(size, 1), strict=True
        ):
            longest = max(1, int(own_lengths.max()))
            yield items.flatten(0, 1).to(device), is_real.to(device), longest

    def _tally(self, items: Tensor, real: Tensor, length: int) -> Tensor:
        """Sums over the rows of a pass.

        Returns:
            (members, 1 + classes²) float64: the log-probabilities of the true classes, and the
            number of rows by true and predicted class.
        """
        batch = gather_batch(self._bank, items, self._setting, True, length)
        logits = self._logits(batch)
        labels = batch.labels.view(self._members, -1)
        probabilities = logits.double().softmax(2)
        classes = probabilities.shape[2]
        of_true = probabilities.gather(2, labels.unsqueeze(2)).squeeze(2)
        log_likelihoods = torch.where(real, of_true.clamp_min(_SMALLEST).log(), 0.0)
        cells = labels * classes + probabilities.argmax(2)
        counts = probabilities.new_zeros(self._members, classes**2)
        counts.scatter_add_(1, cells, real.double())  # whole numbers: their order does not matter
        return torch.cat([log_likelihoods.sum(1, keepdim=True), counts], 1)

    def _logits(self, batch: Batch) -> Tensor:
        """(members, rows, classes)."""
        if self._members == 1:
            return compute_logits(self._model.eval(), batch).unsqueeze(0)
        members = stacked_inputs(model_inputs(batch), self._members)
        logits: Tensor = torch.func.vmap(self._member_logits)(*self._tensors, *members)
        return logits

    def _member_logits(
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
    """Scores of one member from its sums, see `StackScores`."""
    if not rows:
        return None
    classes = math.isqrt(len(tally) - 1)
    return metric_scores(np.reshape(tally[1:], (classes, classes)), tally[0] / rows)
