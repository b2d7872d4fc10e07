"""Members trained side by side by one step on the device, which never waits for the host.

One small model leaves a GPU idle, and the launches of a single step take longer than its kernels.
So members of one shape lie in common tensors, one `torch.func.vmap` runs all their forward and
backward passes, Adam and the averages move all of them at once, and the whole step is repeated as
a graph (`graphs`). Rows, learning rates and noise of many steps are uploaded together; a counter on
the device says which are next.

The numbers are those of members trained one by one, up to the order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from fuse.models.classifier import Inputs
from fuse.models.cloning import clone
from fuse.models.cropped import CroppedTape
from fuse.models.noise import NoiseStream, Tape, noise_shapes
from mmsa_cache.features.batch import Batch

from .buckets import Buckets, Shape
from .classifier import autocast_dtype, gather_batch
from .graphs import StepRepeater
from .leaves import FlatParameters, stack_buffers
from .moves import StackedAdam
from .programs import model_inputs, stacked_inputs
from .rates import BETAS
from .runner import Runner
from .scoring import StackScores
from .uneven import FinishedMembers

_NOISE_BYTES = 128 << 20
"""Of the steps that are uploaded at once."""


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What the steps of an epoch take."""

    number: int
    rows: Tensor
    """Items, (steps, members, batch, 3) on the CPU."""
    shapes: list[Shape]
    """See `buckets`."""
    noise: list[NoiseStream]
    """Of each member."""


class Stack:
    """Members of one setting, with equally many parameters, that begin together.

    Args:
        runners: The members, whose tensors become parts of common ones.

    Attributes:
        scores: Scores the members after an epoch.
        repeated: Runs its steps.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = runners
        first = runners[0]
        self._setting, self._bank = first.setting, first.bank
        self._rest = FinishedMembers([runner.steps for runner in runners])
        self._steps = self._rest.steps
        members = [runner.member for runner in runners]
        for member in members:
            member.fused_in = autocast_dtype(self._setting, self._bank.labels.device)
        count, device = len(members), self._bank.labels.device
        rows = self._setting.batch_size
        items = first.items[torch.arange(rows) % len(first.items)]
        batch = gather_batch(self._bank, items, self._setting, whole_length=True)
        self._noise_shapes = noise_shapes(members[0].model, *model_inputs(batch))
        one = sum(map(math.prod, self._noise_shapes))
        self._buckets: Buckets | None = None
        if self._setting.level == "tokens":
            lengths = self._bank.text.lengths(torch.arange(len(self._bank.text.pooled)))
            self._buckets = Buckets(lengths.cpu(), self._rows_of(0))
        # What `vmap` calls; one member is called as it is.
        self._skeleton = members[0]
        if count > 1:
            self._skeleton = clone(members[0], "meta").train()
        leaves = FlatParameters(members[0].parameters(), count)
        self._leaves = leaves
        weights, means, squares = (leaves.zeros() for _ in range(3))
        leaves.bind(weights, members)
        for runner, mean, square in zip(runners, means, squares, strict=True):
            states = [runner.optimiser.state[p] for p in runner.member.parameters()]
            leaves.keep(states, "exp_avg", mean)
            leaves.keep(states, "exp_avg_sq", square)
        self._buffers = stack_buffers(members)
        averaged: Tensor | None = None
        self._averaged: list[tuple[Tensor, Tensor]] = []
        scored, buffers = weights, _of_model(self._buffers)
        if first.average is not None:
            averages = [runner.scored for runner in runners]
            scored = averaged = leaves.zeros()
            leaves.bind(averaged, averages)
            kept = stack_buffers(averages)
            self._averaged = [(kept[name], buffers[name]) for name in kept]
            buffers = kept
        self._moves = StackedAdam(self._setting, weights, means, squares, averaged)
        names = [name for name, _ in members[0].named_parameters()]
        self._parameters: dict[str, Tensor] = (
            dict(zip(names, members[0].parameters(), strict=True))
            if count == 1
            else {
                name: value.detach().requires_grad_()
                for name, value in zip(names, leaves.parts(weights), strict=True)
            }
        )
        parameters = dict(zip(names, leaves.parts(scored), strict=True))
        held_out = [runner.held_out for runner in runners]
        self.scores = StackScores(
            first.scored, self._setting, self._bank, held_out, _of_model(parameters), buffers
        )

        block = max(1, min(self._steps, _NOISE_BYTES // (2 * count * max(1, one))))
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._rows = torch.zeros(block, count, rows, 3, dtype=torch.int64, device=device)
        self._rates = torch.zeros(block, count, 5, 1, device=device)
        self._noise = torch.zeros(block, count, one, dtype=torch.int16, device=device)
        self._totals = torch.zeros(count, device=device)
        self._ones = torch.ones_like(self._totals)
        self._changed = [weights, means, squares, *self._buffers.values(), self._totals]
        if averaged is not None:
            self._changed += [averaged, *buffers.values()]
        self.repeated = StepRepeater(device)
        self._ahead: _Epoch | None = None

    def epoch(self, number: int) -> Tensor:
        """Trains an epoch, the first being 0; the losses of its steps added up, (members,).

        Nothing is read back from the device.
        """
        if len(self._runners) == 1:
            self._runners[0].member.train()  # that of several is always in training
        given, self._ahead = self._ahead, None
        if given is None or given.number != number:
            given = self._begin(number)
        rates = torch.from_numpy(self._rates_of(number))
        self._totals.zero_()
        block = len(self._rows)
        for first in range(0, self._steps, block):
            part = slice(first, first + block)
            if first:
                self._fill(given, first)
            self._rates[: len(rates[part])].copy_(rates[part], non_blocking=True)
            self._at.zero_()
            kinds = zip(given.shapes[part], self._rest.ended[part], strict=True)
            for (shape, ended), steps in groupby(kinds):
                self._rest.keep(ended, self._changed)
                self.repeated.run(partial(self._step, shape), len(list(steps)), shape)
        self._rest.put_back(self._changed)
        for runner in self._runners:
            runner.count_steps((number + 1) * runner.steps)
        if number + 1 < self._setting.epochs:
            self._ahead = self._begin(number + 1)  # while the device works
        return self._totals

    def _begin(self, number: int) -> _Epoch:
        """Draws what an epoch takes, and brings that of its first steps to the device."""
        rows = self._rows_of(number)
        shapes: list[Shape] = [()] * self._steps
        if self._buckets is not None:
            rows, shapes = self._buckets.sort(rows)
        if self._rows.is_cuda:  # or to copy them would wait for the steps before
            rows = rows.pin_memory()
        found = _Epoch(number, rows, shapes, [runner.noise(number) for runner in self._runners])
        self._fill(found, 0)
        return found

    def _fill(self, epoch: _Epoch, first: int) -> None:
        """Gives the steps from `first` on their rows and noise, as many as there is room for."""
        rows = epoch.rows[first : first + len(self._rows)]
        self._rows[: len(rows)].copy_(rows, non_blocking=True)
        each = self._noise.shape[2]
        for place, stream in enumerate(epoch.noise):
            self._noise[: len(rows), place] = stream(len(rows) * each).view(len(rows), each)

    def _rows_of(self, number: int) -> Tensor:
        """Items of an epoch's steps, (steps, members, batch, 3) on the CPU."""
        every = torch.arange(self._steps)
        rows = [runner.rows(number) for runner in self._runners]
        return torch.stack([own[every.clamp_max(len(own) - 1)] for own in rows], 1)

    def _rates_of(self, number: int) -> np.ndarray:
        """What Adam multiplies with in each step of an epoch, (steps, members, 5, 1) float32.

        Decay of the weights, weight of the gradient in its mean, 1 / √(1 − β₂ᵗ), −rate / (1 − β₁ᵗ),
        and the weight of the weights in their average.
        """
        setting, own = self._setting, np.array([runner.steps for runner in self._runners])
        at = np.minimum(np.arange(self._steps)[:, None], own - 1)
        every = [np.array(runner.rates(number)) for runner in self._runners]
        given = np.stack([of[places] for of, places in zip(every, at.T, strict=True)], 1)
        rate, beta = given[..., 0], given[..., 1]
        time = number * own + at + 1
        found = (
            1 - rate * setting.weight_decay,
            1 - beta,
            1 / np.sqrt(1 - BETAS[1] ** time),
            -rate / (1 - beta**time),
            np.where(time == 1, 1.0, 1 - setting.ema),
        )
        return np.stack(found, axis=2)[..., None].astype(np.float32)

    def _step(self, shape: Shape = ()) -> None:
        """One step of all members; see `graphs` for what it may not do.

        Args:
            shape: How far the texts of each part of the rows are padded, see `buckets`; empty: of
                all rows to the longest of the bank.
        """
        rows, rates, noise = (
            values.index_select(0, self._at).squeeze(0)
            for values in (self._rows, self._rates, self._noise)
        )
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
            self._move(gradients, rates)
            self._totals += losses
            self._at += 1

    def _losses(self, noise: Tensor, parts: Sequence[Batch]) -> Tensor:
        """What is minimised of each member, (members,), on the parts of a batch."""
        inputs = [model_inputs(part) for part in parts]
        if len(self._runners) == 1:  # a stack of one costs the host three times as much
            labels = _joined([part.labels for part in parts], 0)
            value: Tensor = self._runners[0].member(self._tape(noise[0]), labels, inputs)
            return value.unsqueeze(0)
        count = len(self._runners)
        labels = _joined([part.labels.view(count, -1) for part in parts], 1)
        members = [stacked_inputs(of, count) for of in inputs]
        losses: Tensor = torch.func.vmap(self._one)(
            self._parameters, self._buffers, noise, labels, members
        )
        return losses

    def _one(
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

    def _move(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Moves the weights, and the averages of the buffers; see `moves`."""
        self._moves(self._leaves.joined(gradients), rates)
        share = rates[:, 4]
        for average, value in self._averaged:
            part = share.view(-1, *[1] * (value.dim() - 1))
            if value.dtype == torch.float32:
                average.lerp_(value, part)
            else:  # counts, and what never changes
                average.copy_(average * (1 - part) + value * part)


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return torch.cat(parts, axis) if len(parts) > 1 else parts[0]


def _of_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a member's model, by their names in it."""
    prefix = "model."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
