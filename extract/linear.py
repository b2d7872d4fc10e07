"""Linear layers by oneDNN on the CPU.

torch hands float32 matrix products to MKL, which is slow on AMD's processors: on a core of an EPYC
with AVX-512 oneDNN's ran at 235 GFLOP/s against 107, and with them MiniLM's forward pass took 0.54
and DeiT-tiny's 0.61 of the time. The models stay as their libraries made them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# torch's own graph compiler calls this operator, but no public function does.
_POINTWISE: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_SERVES = (
    torch.backends.mkl.is_available()
    and torch.backends.mkldnn.is_available()
    and _POINTWISE is not None
)


class LinearByOneDnn(TorchFunctionMode):
    """While it is entered, this thread's float32 linear layers run in oneDNN, if torch has it."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is F.linear and _SERVES:
            return _linear(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, by whose names it is called too."""
    if input.dtype == weight.dtype == torch.float32:
        return _POINTWISE(input, weight, bias, "none", [], "")
    return F.linear(input, weight, bias)
