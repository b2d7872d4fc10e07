"""A member, which is a model with its loss, and the inputs of its model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fuse.losses.loss import Loss
from fuse.models.classifier import Classifier, Inputs
from fuse.models.noise import NoiseSource, Tape, noise_from
from mmsa_cache.features.batch import Batch


class Member(nn.Module):
    """A model and its loss; a call gives the value to minimise."""

    def __init__(self, model: Classifier, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.fused_dtype: torch.dtype | None = None
        """Type of the matrix products before the classifier; None: that of the weights."""
        # Walking through the modules at every step would take a tenth of a small model's time.
        self._parameter_list = list(self.parameters())

    def forward(
        self, noise: Tensor | NoiseSource | Tape, labels: Tensor, parts: Sequence[Inputs]
    ) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            noise: Noise of dropout, see `noise_from`.
            labels: (batch,)
            parts: Inputs of the model. The rows come in parts so that short texts need not be
                padded to the longest.
        """
        fused, masks = [], []
        with noise_from(noise) as tape:
            for inputs in parts:
                tape.begin_part()
                vectors, present = self._fuse(inputs)
                fused.append(vectors)
                if present is not None:  # of one bank: in all parts or in none
                    masks.append(present)
            tape.end_parts()
            logits = self.model.classify(join(fused), join(masks) if masks else None)
            loss: Tensor = self.loss(logits, labels)
        return loss

    def _fuse(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        if self.fused_dtype is None:
            return self.model.fuse(inputs)[:2]
        device = next(self.parameters()).device.type
        # Cached casts would belong to a graph's first part.
        with torch.autocast(device, self.fused_dtype, cache_enabled=False):
            vectors, present, _ = self.model.fuse(inputs)
        return vectors.float(), present

    def backward(self, noise: NoiseSource, parts: Sequence[Batch]) -> Tensor:
        """Stores the gradients of a batch, which comes in parts, in the parameters.

        Returns:
            The loss, a scalar, detached.
        """
        for parameter in self._parameter_list:
            parameter.grad = None
        labels = join([part.labels for part in parts])
        loss: Tensor = self(noise, labels, [model_inputs(part) for part in parts])
        loss.backward()
        return loss.detach()


def join(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """`torch.cat`, without a copy of a single part."""
    return torch.cat([*parts], axis) if len(parts) > 1 else parts[0]


def model_inputs(batch: Batch) -> Inputs:
    """The inputs of a model in a batch."""
    return Inputs(batch.text, batch.text_mask, batch.image, batch.image_mask, batch.vectors)


def stacked_inputs(inputs: Inputs, members: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits rows of all members, one member after another, into (members, rows, …).

    Returns:
        Sequences and masks by the names of `Inputs`, without those that are None, as
        `torch.func.vmap` and `Inputs.of` need it; and pooled vectors by name.
    """
    shape = (members, -1)
    sequences = {
        name: value.unflatten(0, shape)
        for name, value in zip(Inputs._fields[:4], inputs[:4], strict=True)
        if isinstance(value, Tensor)
    }
    return sequences, {name: value.unflatten(0, shape) for name, value in inputs.vectors.items()}
