"""Matrix products by oneDNN on the CPU.

torch hands float32 products to MKL, which is slow on AMD's processors: on a core of an EPYC with
AVX-512 it ran at 105 GFLOP/s and oneDNN, which is part of torch too, at 235. On Intel's they are
equally fast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# torch's own graph compiler calls this operator, but no public function does.
_POINTWISE: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
SERVES = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and _POINTWISE is not None
)
"""Whether this torch has the operator, and uses MKL without it."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias of float32 tensors on the CPU, without a gradient.

    Args:
        x: ``(..., in)``.
        weight: ``(out, in)``.
        bias: ``(out,)``.

    Returns:
        ``(..., out)``.
    """
    product: Tensor = _POINTWISE(x, weight, bias, "none", [], "")
    return product
