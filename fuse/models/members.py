"""Linear layers and batch normalisation of many stacked members in as few kernels as of one.

`torch.func.vmap` splits a linear layer into a product, a scaling and a sum, leaves the gradient of
its weights transposed, and copies what batch normalisation reads. Where modules see members that
are mapped over, they call what is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Tells a tensor that `vmap` maps over; torch.func has no public name for it.
from torch._C._functorch import is_batchedtensor
from torch.nn import functional as F


def mapped(*tensors: Tensor | None) -> bool:
    """Whether `vmap` maps over one of the tensors."""
    return any(tensor is not None and is_batchedtensor(tensor) for tensor in tensors)


def of_members(function: Callable[..., Tensor], *operands: Any) -> Tensor:
    """Calls a function once with the operands of all members, (members, …) each.

    Args:
        function: Gives a tensor (members, …) of such operands.
        operands: Tensors as they are seen inside `vmap`, or what every member has.
    """
    found: Tensor = _AsOne.apply(function, *operands)
    return found


class _AsOne(torch.autograd.Function):
    """Has a rule for `vmap` alone; gradients are those of what the rule calls."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *operands: Any) -> Tensor:
        raise NotImplementedError("only inside torch.func.vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Not called, but `vmap` wants it."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Tensor], *operands: Any
    ) -> tuple[Tensor, int]:
        def stacked(value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor):
                return value
            return (
                value.movedim(dim, 0)
                if dim is not None
                else value.expand(info.batch_size, *value.shape)
            )

        return function(*map(stacked, operands, in_dims[1:])), 0


def linear_of_members(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias of every member.

    Args:
        x: ``(members, ..., in)``.
        weight: ``(members, out, in)``.
        bias: ``(members, out)``.

    Returns:
        ``(members, ..., out)``; of vectors ``(members, batch, in)`` a batch's numbers lie side by
        side, as `norm_of_members` wants them.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    product: Tensor = _Linear.apply(x.flatten(1, -2), weight, bias, x.ndim == 3)
    return product.unflatten(1, x.shape[1:-1])


class _Linear(torch.autograd.Function):
    """Leaves the gradient of the weights as the weights lie, and adds the bias in the product."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, side_by_side: bool) -> Tensor:
        members, rows, _ = x.shape
        features = weight.shape[1]
        if side_by_side:
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
    """``nn.BatchNorm1d`` of vectors, which takes members that `vmap` maps over as one."""

    def forward(self, input: Tensor) -> Tensor:
        """``(batch, features)`` to the same."""
        if not mapped(input):
            return super().forward(input)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return of_members(
            norm_of_members,
            input, self.weight, self.bias, self.running_mean, self.running_var,
            self.training, self.momentum, self.eps,
        )  # fmt: skip


def norm_of_members(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    epsilon: float,
) -> Tensor:
    """Batch normalisation of every member: that of one with the features of all.

    Args:
        x: ``(members, batch, features)``.
        weight, bias: ``(members, features)``, as the statistics.
        mean, variance: Running statistics, which move in training.
        training, momentum, epsilon: See `torch.nn.functional.batch_norm`.
    """
    found = F.batch_norm(
        x.transpose(0, 1).flatten(1),
        mean.view(-1), variance.view(-1), weight.flatten(), bias.flatten(),
        training, momentum, epsilon,
    )  # fmt: skip
    return found.unflatten(1, (len(weight), -1)).transpose(0, 1)
