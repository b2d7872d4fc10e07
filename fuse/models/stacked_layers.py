"""Linear layers and batch normalisation of stacked members, in as few kernels as for one member.

`torch.func.vmap` splits a linear layer into a product, a scaling and a sum, returns the gradient of
its weights transposed, and copies the input of batch normalisation. Modules call these functions
instead, where `vmap` maps over members.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fuse.mapping import call_for_members, is_mapped


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias of every member.

    Args:
        x: ``(members, ..., in)``.
        weight: ``(members, out, in)``.
        bias: ``(members, out)``.

    Returns:
        ``(members, ..., out)``. For vectors ``(members, batch, in)`` the memory layout is that of
        (batch, members, out), which suits `stacked_batch_norm`.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    product: Tensor = _Linear.apply(x.flatten(1, -2), weight, bias, x.ndim == 3)
    return product.unflatten(1, x.shape[1:-1])


class _Linear(torch.autograd.Function):
    """Keeps the gradient of the weights in their layout, and adds the bias in the product."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, batch_first: bool) -> Tensor:
        members, rows, _ = x.shape
        features = weight.shape[1]
        if batch_first:
            product = x.new_empty(rows, members, features).transpose(0, 1)
        else:
            product = x.new_empty(members, rows, features)
        if bias is None:
            return torch.bmm(x, weight.mT, out=product)
        return product.copy_(bias.unsqueeze(1)).baddbmm_(x, weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        return (
            grad.bmm(weight) if need_x else None,
            grad.mT.bmm(x) if need_weight else None,
            grad.sum(1) if need_bias else None,
            None,
        )


class BatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of vectors that handles all members of `vmap` at once."""

    def forward(self, input: Tensor) -> Tensor:
        """``(batch, features)`` to the same."""
        if not is_mapped(input):
            return super().forward(input)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return call_for_members(
            stacked_batch_norm,
            input, self.weight, self.bias, self.running_mean, self.running_var,
            self.training, self.momentum, self.eps,
        )  # fmt: skip


def stacked_batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """Batch normalisation of all members, as of one with the features of all.

    Args:
        x: ``(members, batch, features)``.
        weight, bias: ``(members, features)``, like the statistics.
        mean, variance: Running statistics, which are updated in training.
        training, momentum, epsilon: See `torch.nn.functional.batch_norm`.
    """
    normalised = F.batch_norm(
        x.transpose(0, 1).flatten(1),
        mean.view(-1), variance.view(-1), weight.flatten(), bias.flatten(),
        training, momentum, epsilon,
    )  # fmt: skip
    return normalised.unflatten(1, (len(weight), -1)).transpose(0, 1)
