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
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmsa_cache.bank import Batch

from .kernel import KernelClassifier
from .loss import Loss
from .model import MultimodalClassifier


class Member(nn.Module):
    """A model and its loss, so that one call gives what is minimised."""

    def __init__(self, model: MultimodalClassifier | KernelClassifier, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, noise: Tensor, labels: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Noise (n,), labels (batch,) and the model's inputs to a scalar."""
        self.model.tape.rewind(noise)
        logits, _ = self.model(**inputs)
        value: Tensor = self.loss(logits, labels)
        return value


def model_inputs(batch: Batch) -> dict[str, Any]:
    """The arguments of a model's `forward` for a batch, in its order."""
    return {
        "text": batch.text,
        "text_mask": batch.text_mask,
        "image": batch.image,
        "image_mask": batch.image_mask,
        "vectors": batch.vectors,
    }


class Program(Protocol):
    """Runs the step of all members."""

    def backward(self, noise: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
        """Leaves each member's gradients in its parameters.

        Args:
            noise: Dropout noise of each member, (n,) int16.
            batches: One a member, of equal shapes.

        Returns:
            Loss of each member, (members,), detached.
        """


class Alone:
    """One member, called as it is."""

    def __init__(self, member: Member) -> None:
        self._member = member
        # Walking through the modules at every step would take a tenth of a small model's time.
        self._parameters = list(member.parameters())

    def backward(self, noise: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
        """See `Program`."""
        member, batch = self._member, batches[0]
        for parameter in self._parameters:
            parameter.grad = None
        loss = member(noise[0], batch.labels, model_inputs(batch))
        loss.backward()
        return loss.detach().unsqueeze(0)


class Stacked:
    """Several members of one shape; their parameters and buffers become views of common tensors.

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
        self._run = torch.func.vmap(self._one, in_dims=(0, 0, 0, 0, 0))

    def _one(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        noise: Tensor,
        labels: Tensor,
        inputs: dict[str, Any],
    ) -> Tensor:
        return torch.func.functional_call(
            self._skeleton, (parameters, buffers), (noise, labels, inputs)
        )

    def backward(self, noise: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
        """See `Program`."""
        for value in self._parameters.values():
            assert value.grad is not None
            value.grad.zero_()
        parts = [model_inputs(batch) for batch in batches]
        inputs: dict[str, Any] = {
            key: torch.stack([part[key] for part in parts]) for key in parts[0] if key != "vectors"
        }
        inputs["vectors"] = {
            name: torch.stack([part["vectors"][name] for part in parts])
            for name in parts[0]["vectors"]
        }
        losses = self._run(
            self._parameters,
            self._buffers,
            torch.stack(list(noise)),
            torch.stack([batch.labels for batch in batches]),
            inputs,
        )
        losses.sum().backward()
        return losses.detach()
