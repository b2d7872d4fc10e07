"""A member, that is a model with its loss, and how one alone takes a step; see `stack` for many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fuse.losses.loss import Loss
from fuse.models.classifier import Classifier, Inputs
from fuse.models.noise import NoiseSource, Tape, noise_from
from mmsa_cache.features.batch import Batch


class Member(nn.Module):
    """A model and its loss, so that one call gives what is minimised."""

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.fused_in: torch.dtype | None = None
        """What matrix products of everything before the classifier are computed in."""

    def forward(
        self, noise: Tensor | NoiseSource | Tape, labels: Tensor, parts: Sequence[Inputs]
    ) -> Tensor:
        """What is minimised on a batch, a scalar.

        Args:
            noise: of dropout, see `noise_from`.
            labels: (batch,)
            parts: The inputs of the model; rows come in parts, so that short texts need not be
                padded to the longest.
        """
        with noise_from(noise) as tape:
            fused = []
            for inputs in parts:
                tape.begin_part()
                fused.append(self._fused(inputs))
            tape.end_parts()
            vectors, present = fused[0]
            if len(fused) > 1:
                vectors = torch.cat([vector for vector, _ in fused])
                # Masks are those of a bank, so either all parts have them or none.
                known = [there for _, there in fused if there is not None]
                present = torch.cat(known) if known else None
            value: Tensor = self.loss(self.model.classify(vectors, present), labels)
        return value

    def _fused(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        if self.fused_in is None:
            return self.model.fuse(inputs)[:2]
        device = next(self.parameters()).device.type
        # Casts that are kept would be those of a graph's first part.
        with torch.autocast(device, self.fused_in, cache_enabled=False):
            vectors, present, _ = self.model.fuse(inputs)
        return vectors.float(), present


def model_inputs(batch: Batch) -> Inputs:
    """What a model takes of a batch."""
    return Inputs(batch.text, batch.text_mask, batch.image, batch.image_mask, batch.vectors)


def stacked_inputs(inputs: Inputs, members: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows of all members one after another as sequences and vectors, (members, rows, …) each.

    What is None is left out, as `torch.func.vmap` and `Inputs.of` want it.
    """
    shape = (members, -1)
    sequences = {
        name: value.unflatten(0, shape)
        for name, value in zip(Inputs._fields[:4], inputs[:4], strict=True)
        if isinstance(value, Tensor)
    }
    return sequences, {name: value.unflatten(0, shape) for name, value in inputs.vectors.items()}


class Alone:
    """One member, called as it is."""

    def __init__(self, member: Member) -> None:
        self._member = member
        # Walking through the modules at every step would take a tenth of a small model's time.
        self._parameters = list(member.parameters())

    def backward(self, noise: NoiseSource, parts: Sequence[Batch]) -> Tensor:
        """Leaves the gradients of a batch, which comes in parts, in the parameters.

        Returns:
            The loss, a scalar, detached.
        """
        for parameter in self._parameters:
            parameter.grad = None
        labels = parts[0].labels if len(parts) == 1 else torch.cat([p.labels for p in parts])
        loss: Tensor = self._member(noise, labels, [model_inputs(part) for part in parts])
        loss.backward()
        return loss.detach()
