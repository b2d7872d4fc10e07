"""Operations that members which `torch.func.vmap` maps over take part in together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

try:
    # What torch.func has no public names for. A rule for `vmap` of a `torch.autograd.Function` does
    # the same, but costs the host half a millisecond a call.
    from torch._C._functorch import _add_batch_dim, _unwrap_batched, is_batchedtensor
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
except ImportError:  # of a torch to come
    SUPPORTED = False
else:
    SUPPORTED = True
"""Whether this torch lets members take part together; else `vmap` does it its own way."""


def is_mapped(*tensors: Tensor | None) -> bool:
    """Whether `vmap` maps over one of the tensors, and `call_for_members` can be called."""
    return SUPPORTED and any(t is not None and is_batchedtensor(t) for t in tensors)


def call_for_members(function: Callable[..., Tensor], *operands: Any) -> Tensor:
    """Calls a function once with the operands of all members, (members, …) each.

    Args:
        function: Gives a tensor (members, …) of such operands.
        operands: Tensors as they are seen inside `vmap`, one of which it maps over, or what every
            member has.
    """
    mapping: Any = retrieve_current_functorch_interpreter()
    level, members = mapping.level(), mapping.batch_size()

    def stacked(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        own, axis = _unwrap_batched(value, level)
        return own.expand(members, *own.shape) if axis is None else own.movedim(axis, 0)

    given = [stacked(value) for value in operands]
    with mapping.lower():
        found = function(*given)
    return _add_batch_dim(found, 0, level)
