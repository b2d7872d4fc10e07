"""Linear layers that train in oneDNN where PyTorch would call MKL; see `onednn`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Tells a tensor inside `vmap` or `grad`; torch.func has no public name for it.
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn import functional as F

from fuse.mapping import call_for_members, is_mapped
from mmsa_cache.native import float32, onednn

from .stacked_layers import stacked_linear

_WORTH = 2_500_000
"""Fewest multiplications of a product for which oneDNN saves more than the detour costs."""


class Linear(nn.Linear):
    """``nn.Linear`` that calls `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias, with gradients.

    Args:
        x: ``(..., in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``.

    Returns:
        ``(..., out)``.
    """
    if is_mapped(x, weight):
        return call_for_members(stacked_linear, x, weight, bias)
    if _use_onednn(x, weight):
        product: Tensor = _OneDnn.apply(x, weight, bias)
        return product
    return F.linear(x, weight, bias)


def _use_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        onednn.SERVES
        and float32.cpu_matmul_precision() != "bf16"  # with which PyTorch uses oneDNN by itself
        and not torch.compiler.is_compiling()  # an exported graph keeps PyTorch's operator
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not is_functorch_wrapped_tensor(x)
        and not is_functorch_wrapped_tensor(weight)
        and x.numel() * weight.shape[0] >= _WORTH
    )


class _OneDnn(torch.autograd.Function):
    """All three products of a linear layer are themselves linear layers without a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn.linear(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = onednn.linear(grad, weight.t()) if need_x else None
        grad_weight = onednn.linear(rows.t(), x.reshape(len(rows), -1).t()) if need_weight else None
        return grad_x, grad_weight, rows.sum(0) if need_bias else None
