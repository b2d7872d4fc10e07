"""Operations that members which `torch.func.vmap` maps over take part in together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Tells a tensor that `vmap` maps over; torch.func has no public name for it.
from torch._C._functorch import is_batchedtensor


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
