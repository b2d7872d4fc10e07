"""How a training step runs: one model alone, or several of one shape as one stacked program.

A *member* is a model with its loss. Several members are trained together because one small model
leaves a GPU idle: their parameters and buffers are laid into common tensors, every module keeps
looking at its part, and one `torch.func.vmap` runs all forward and backward passes at once.
Everything else (optimiser, schedule, clipping, averaging, checkpoints) sees ordinary modules, so
it is the same for both programs, and both give the same numbers up to the order of additions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from fuse.losses.loss import Loss
from fuse.models.classifier import Classifier, Inputs
from fuse.models.noise import Draw, drawn_from, noise_needed
from mmsa_cache.features.batch import Batch


class Member(nn.Module):
    """A model and its loss, so that one call gives what is minimised."""

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, noise: Tensor | Draw, labels: Tensor, parts: Sequence[Inputs]) -> Tensor:
        """What is minimised on a batch, a scalar.

        Args:
            noise: of dropout, see `drawn_from`.
            labels: (batch,)
            parts: The inputs of the model; rows come in parts, so that short texts need not be
                padded to the longest.
        """
        with drawn_from(noise):
            fused = [self.model.fuse(inputs)[:2] for inputs in parts]
            vectors, present = fused[0]
            if len(fused) > 1:
                vectors = torch.cat([vector for vector, _ in fused])
                # Masks are those of a bank, so either all parts have them or none.
                known = [there for _, there in fused if there is not None]
                present = torch.cat(known) if known else None
            value: Tensor = self.loss(self.model.classify(vectors, present), labels)
        return value


def model_inputs(batch: Batch) -> Inputs:
    """What a model takes of a batch."""
    return Inputs(batch.text, batch.text_mask, batch.image, batch.image_mask, batch.vectors)


class Program(Protocol):
    """Runs the step of all members."""

    def backward(self, noise: Sequence[Draw], batches: Sequence[Sequence[Batch]]) -> Tensor:
        """Leaves each member's gradients in its parameters.

        Args:
            noise: What draws the dropout noise of each member.
            batches: A batch a member, in parts.

        Returns:
            Loss of each member, (members,), detached.
        """


class Alone:
    """One member, called as it is."""

    def __init__(self, member: Member) -> None:
        self._member = member
        # Walking through the modules at every step would take a tenth of a small model's time.
        self._parameters = list(member.parameters())

    def backward(self, noise: Sequence[Draw], batches: Sequence[Sequence[Batch]]) -> Tensor:
        """See `Program`."""
        (parts,) = batches
        for parameter in self._parameters:
            parameter.grad = None
        labels = parts[0].labels if len(parts) == 1 else torch.cat([p.labels for p in parts])
        loss = self._member(noise[0], labels, [model_inputs(part) for part in parts])
        loss.backward()
        return loss.detach().unsqueeze(0)


class Stacked:
    """Several members of one shape; their parameters and buffers become views of common tensors.

    Batches must be in one part and of equal shapes.

    Args:
        members: Modules on one device; afterwards each holds its part of the stack.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._parameters, self._buffers = torch.func.stack_module_state(list(members))
        for value in self._parameters.values():
            value.grad = torch.zeros_like(value)
        for place, member in enumerate(members):
            for name, parameter in member.named_parameters():
                stack = self._parameters[name]
                assert stack.grad is not None
                parameter.data = stack.data[place]
                parameter.grad = stack.grad[place]
            for name, _ in member.named_buffers():
                owner, _, key = name.rpartition(".")
                member.get_submodule(owner)._buffers[key] = self._buffers[name][place]
        self._skeleton = copy.deepcopy(members[0]).to("meta")
        self._run = torch.func.vmap(self._one, in_dims=(0, 0, 0, 0, 0, 0))
        self._noise_needed: dict[tuple[torch.Size, ...], int] = {}

    def _one(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        noise: Tensor,
        labels: Tensor,
        sequences: dict[str, Tensor],
        vectors: dict[str, Tensor],
    ) -> Tensor:
        inputs = Inputs.of(sequences, vectors)
        return torch.func.functional_call(
            self._skeleton, (parameters, buffers), (noise, labels, [inputs])
        )

    def backward(self, noise: Sequence[Draw], batches: Sequence[Sequence[Batch]]) -> Tensor:
        """See `Program`."""
        for value in self._parameters.values():
            assert value.grad is not None
            value.grad.zero_()
        whole = [batch for (batch,) in batches]
        parts = [model_inputs(batch) for batch in whole]
        given = {key: [getattr(part, key) for part in parts] for key in Inputs._fields}
        vectors = given.pop("vectors")
        count = self._noise_count(parts[0])
        losses = self._run(
            self._parameters,
            self._buffers,
            torch.stack([draw(count) for draw in noise]),
            torch.stack([batch.labels for batch in whole]),
            # `vmap` takes no None
            {key: torch.stack(values) for key, values in given.items() if values[0] is not None},
            {name: torch.stack([of[name] for of in vectors]) for name in vectors[0]},
        )
        losses.sum().backward()
        return losses.detach()

    def _noise_count(self, inputs: Inputs) -> int:
        shape = tuple(x.shape[:2] for x in (inputs.text, inputs.image) if x is not None)
        if shape not in self._noise_needed:
            self._noise_needed[shape] = noise_needed(self._skeleton.model, *inputs)
        return self._noise_needed[shape]
