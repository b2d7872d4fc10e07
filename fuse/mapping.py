"""Operations on all members of `torch.func.vmap` at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

try:
    # There are no public names for these. A `vmap` rule of a `torch.autograd.Function` does the
    # same, but costs the host half a millisecond a call.
    from torch._C._functorch import _add_batch_dim, _unwrap_batched, is_batchedtensor
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
except ImportError:  # in a future PyTorch
    SUPPORTED = False
else:
    SUPPORTED = True
"""Whether this PyTorch allows it; if not, `vmap` maps the operations itself."""


def is_mapped(*tensors: Tensor | None) -> bool:
    """Whether `vmap` maps over one of the tensors, so that `call_for_members` can be called."""
    return SUPPORTED and any(t is not None and is_batchedtensor(t) for t in tensors)


def call_for_members(function: Callable[..., Tensor], *operands: Any) -> Tensor:
    """Calls a function once with the operands of all members, (members, …) each.

    Args:
        function: Returns a tensor (members, …).
        operands: Tensors inside `vmap`, at least one of which is mapped over, and other values,
            which are the same for all members.
    """
    mapping: Any = retrieve_current_functorch_interpreter()
    level, members = mapping.level(), mapping.batch_size()

    def stack(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        own, axis = _unwrap_batched(value, level)
        return own.expand(members, *own.shape) if axis is None else own.movedim(axis, 0)

    values = [stack(value) for value in operands]
    with mapping.lower():
        result = function(*values)
    return _add_batch_dim(result, 0, level)
