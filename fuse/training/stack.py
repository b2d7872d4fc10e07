"""Members trained side by side by one step on the device, which never waits for the host.

One small model leaves a GPU idle, and launching a step takes longer than its kernels. So members
of one shape share tensors: one `torch.func.vmap` runs all their forward and backward passes, one
Adam moves their weights and averages, and the whole step is repeated as a graph (`graphs`). Rows,
learning rates and noise of many steps are uploaded together (`step_inputs`).

The numbers are those of members trained one by one, up to the order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fuse.models.classifier import Inputs
from fuse.models.cloning import clone
from fuse.models.cropped import CroppedTape
from fuse.models.noise import Tape, noise_shapes
from mmsa_cache.features.batch import Batch

from .buckets import Buckets, Shape
from .classifier import autocast_dtype, gather_batch
from .flat_parameters import FlatParameters, stack_buffers
from .graphs import StepRepeater
from .member import join, model_inputs, stacked_inputs
from .rates import BETAS
from .runner import Runner
from .scoring import StackScores
from .stacked_adam import StackedAdam
from .step_inputs import EpochInputs, StepInputs
from .uneven import FinishedMembers

_NOISE_BYTES = 128 << 20
"""Most bytes of noise that are uploaded at once."""


class Stack:
    """Members of one setting, with equally many parameters, that begin together.

    Args:
        runners: The members. Their tensors become parts of shared ones.

    Attributes:
        scores: Scores the members after an epoch.
        repeated: Repeats the step.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = runners
        first, count = runners[0], len(runners)
        self._setting, self._bank = first.setting, first.bank
        device = self._bank.labels.device
        self._finished = FinishedMembers([runner.steps for runner in runners])
        self._steps = self._finished.steps
        members = [runner.member for runner in runners]
        for member in members:
            member.fused_dtype = autocast_dtype(self._setting, device)
        self._noise_shapes = self._step_noise()
        self._buckets = self._make_buckets()
        # `vmap` calls the skeleton; a single member is called itself.
        self._skeleton = members[0] if count == 1 else clone(members[0], "meta").train()
        self._flat = FlatParameters(members[0].parameters(), count)
        weights, means, squares = (self._flat.zeros() for _ in range(3))
        self._flat.bind(weights, members)
        for runner, mean, square in zip(runners, means, squares, strict=True):
            states = [runner.optimiser.state[p] for p in runner.member.parameters()]
            self._flat.bind_states(states, "exp_avg", mean)
            self._flat.bind_states(states, "exp_avg_sq", square)
        self._buffers = stack_buffers(members)
        self._totals = torch.zeros(count, device=device)
        self._ones = torch.ones_like(self._totals)
        self._changed = [weights, means, squares, *self._buffers.values(), self._totals]

        scored, buffers = weights, _model_tensors(self._buffers)
        averages: Tensor | None = None
        self._averaged_buffers: list[tuple[Tensor, Tensor]] = []
        if first.average is not None:
            models = [runner.scored_model for runner in runners]
            scored = averages = self._flat.zeros()
            self._flat.bind(averages, models)
            averaged = stack_buffers(models)
            self._averaged_buffers = [(averaged[name], buffers[name]) for name in averaged]
            buffers = averaged
            self._changed += [averages, *buffers.values()]
        self._adam = StackedAdam(self._setting, weights, means, squares, averages)

        names = [name for name, _ in members[0].named_parameters()]
        self._parameters: dict[str, Tensor] = dict(members[0].named_parameters())
        if count > 1:
            leaves = [view.detach().requires_grad_() for view in self._flat.views(weights)]
            self._parameters = dict(zip(names, leaves, strict=True))
        parameters = _model_tensors(dict(zip(names, self._flat.views(scored), strict=True)))
        held_out = [runner.held_out for runner in runners]
        self.scores = StackScores(
            first.scored_model, self._setting, self._bank, held_out, parameters, buffers
        )
        values = sum(map(math.prod, self._noise_shapes))
        steps = max(1, min(self._steps, _NOISE_BYTES // (2 * count * max(1, values))))
        self._inputs = StepInputs(steps, count, self._setting.batch_size, values, device)
        self.repeated = StepRepeater(device)
        self._ahead: EpochInputs | None = None

    def _step_noise(self) -> list[tuple[int, ...]]:
        """Shapes of the noise of one member in a step that pads texts to the longest."""
        first = self._runners[0]
        items = first.items[torch.arange(self._setting.batch_size) % len(first.items)]
        batch = gather_batch(self._bank, items, self._setting, whole_length=True)
        return noise_shapes(first.member.model, *model_inputs(batch))

    def _make_buckets(self) -> Buckets | None:
        if self._setting.level != "tokens":
            return None
        lengths = self._bank.text.lengths(torch.arange(len(self._bank.text.pooled)))
        return Buckets(lengths.cpu(), self._epoch_rows(0))

    def epoch(self, number: int) -> Tensor:
        """Trains an epoch, counted from 0. Nothing is read back from the device.

        Returns:
            The sum of the losses of its steps, (members,).
        """
        if len(self._runners) == 1:
            self._runners[0].member.train()  # the skeleton of several is always in training
        epoch, self._ahead = self._ahead, None
        if epoch is None or epoch.number != number:
            epoch = self._prepare(number)
        rates = torch.from_numpy(self._adam_factors(number))
        self._totals.zero_()
        for first in range(0, self._steps, len(self._inputs)):
            block = slice(first, first + len(self._inputs))
            if first:
                self._inputs.load(epoch, first)
            self._inputs.start(rates[block])
            kinds = zip(epoch.shapes[block], self._finished.counts[block], strict=True)
            for (shape, finished), steps in groupby(kinds):
                self._finished.store(finished, self._changed)
                self.repeated.run(partial(self._step, shape), len(list(steps)), shape)
        self._finished.restore(self._changed)
        for runner in self._runners:
            runner.count_steps((number + 1) * runner.steps)
        if number + 1 < self._setting.epochs:
            self._ahead = self._prepare(number + 1)  # while the device works
        return self._totals

    def _prepare(self, number: int) -> EpochInputs:
        """Draws the inputs of an epoch, and uploads those of its first steps."""
        rows = self._epoch_rows(number)
        shapes: list[Shape] = [()] * self._steps
        if self._buckets is not None:
            rows, shapes = self._buckets.sort(rows)
        if self._totals.is_cuda:  # copying from other memory would wait for the steps before
            rows = rows.pin_memory()
        epoch = EpochInputs(
            number, rows, shapes, [runner.noise(number) for runner in self._runners]
        )
        self._inputs.load(epoch, 0)
        return epoch

    def _epoch_rows(self, number: int) -> Tensor:
        """Items of an epoch's steps, (steps, members, batch, 3) on the CPU."""
        steps = torch.arange(self._steps)
        rows = [runner.rows(number) for runner in self._runners]
        return torch.stack([own[steps.clamp_max(len(own) - 1)] for own in rows], 1)

    def _adam_factors(self, number: int) -> np.ndarray:
        """The factors of Adam in each step of an epoch, (steps, members, 5, 1) float32.

        Decay of the weights, weight of the gradient in its mean, 1 / √(1 − β₂ᵗ), −rate / (1 − β₁ᵗ),
        and weight of the weights in their average.
        """
        setting, own_steps = self._setting, np.array([runner.steps for runner in self._runners])
        step = np.minimum(np.arange(self._steps)[:, None], own_steps - 1)
        rates = [np.array(runner.rates(number)) for runner in self._runners]
        of_steps = np.stack([own[rows] for own, rows in zip(rates, step.T, strict=True)], 1)
        rate, beta = of_steps[..., 0], of_steps[..., 1]
        time = number * own_steps + step + 1
        factors = (
            1 - rate * setting.weight_decay,
            1 - beta,
            1 / np.sqrt(1 - BETAS[1] ** time),
            -rate / (1 - beta**time),
            np.where(time == 1, 1.0, 1 - setting.ema),
        )
        return np.stack(factors, axis=2)[..., None].astype(np.float32)

    def _step(self, shape: Shape = ()) -> None:
        """One step of all members; see `graphs` for what it may not do.

        Args:
            shape: Length to which the texts of each part of the rows are padded, see `buckets`;
                empty: one part, padded to the longest text of the bank.
        """
        rows, rates, noise = self._inputs.current()
        sizes = self._buckets.sizes if self._buckets is not None and shape else rows.shape[1]
        parts = [
            gather_batch(self._bank, part.flatten(0, 1), self._setting, True, length)
            for part, length in zip(rows.split(sizes, 1), shape or (None,), strict=True)
        ]
        losses = self._losses(noise, parts)
        gradients = torch.autograd.grad(
            losses, list(self._parameters.values()), self._ones, materialize_grads=True
        )
        with torch.no_grad():
            self._adam(self._flat.flatten(gradients), rates)
            self._average_buffers(rates[:, 4])
            self._totals += losses
            self._inputs.advance()

    def _losses(self, noise: Tensor, parts: Sequence[Batch]) -> Tensor:
        """The loss of each member on the parts of a batch, (members,)."""
        inputs = [model_inputs(part) for part in parts]
        if len(self._runners) == 1:  # `vmap` of one would cost the host three times as much
            labels = join([part.labels for part in parts])
            loss: Tensor = self._runners[0].member(self._tape(noise[0]), labels, inputs)
            return loss.unsqueeze(0)
        count = len(self._runners)
        labels = join([part.labels.view(count, -1) for part in parts], 1)
        members = [stacked_inputs(part, count) for part in inputs]
        losses: Tensor = torch.func.vmap(self._member_loss)(
            self._parameters, self._buffers, noise, labels, members
        )
        return losses

    def _member_loss(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        noise: Tensor,
        labels: Tensor,
        parts: Sequence[tuple[dict[str, Tensor], dict[str, Tensor]]],
    ) -> Tensor:
        inputs = [Inputs.of(*part) for part in parts]
        return torch.func.functional_call(
            self._skeleton, (parameters, buffers), (self._tape(noise), labels, inputs)
        )

    def _tape(self, noise: Tensor) -> Tape:
        """The noise of one member in a step."""
        if self._buckets is None:
            return Tape(noise)
        return CroppedTape(noise, self._noise_shapes, self._bank.text.longest)

    def _average_buffers(self, weights: Tensor) -> None:
        """Averages the buffers as `StackedAdam` does the weights.

        Args:
            weights: Of the values in their averages, (members, 1).
        """
        for average, value in self._averaged_buffers:
            weight = weights.view(-1, *[1] * (value.dim() - 1))
            if value.dtype == torch.float32:
                average.lerp_(value, weight)
            else:  # counts, and what never changes
                average.copy_(average * (1 - weight) + value * weight)


def _model_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a member's model, by their names in the model."""
    prefix = "model."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
