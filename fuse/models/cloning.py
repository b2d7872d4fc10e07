"""Copies of modules, in a fraction of the time of `copy.deepcopy`, which looks at every object."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def clone(module: _Module, device: torch.device | str | None = None) -> _Module:
    """A module of the same parts with parameters and buffers of its own.

    A tensor that is a part of a larger one is copied alone. What else a module holds, as numbers,
    names and lists, is shared: modules do not change it once they are made.

    Args:
        module: Any one; its gradients are left out.
        device: Of the copy; default: that of each tensor. On ``meta`` nothing is copied.
    """
    return _Copies(device).module(module)


class _Copies:
    """Copies by their originals, of which one may stand in several places."""

    def __init__(self, device: torch.device | str | None) -> None:
        self._device = device
        self._tensors: dict[Tensor, Tensor] = {}
        self._modules: dict[nn.Module, nn.Module] = {}

    def module(self, module: _Module) -> _Module:
        twin = self._modules.get(module)
        if twin is None:
            twin = object.__new__(type(module))
            self._modules[module] = twin
            own = {k: v.copy() if isinstance(v, dict | set) else v for k, v in vars(module).items()}
            own["_parameters"] = {k: self._tensor(v) for k, v in module._parameters.items()}
            own["_buffers"] = {k: self._tensor(v) for k, v in module._buffers.items()}
            own["_modules"] = {
                k: None if v is None else self.module(v) for k, v in module._modules.items()
            }
            twin.__dict__ = own
        assert isinstance(twin, type(module))
        return twin

    def _tensor(self, value: Tensor | None) -> Tensor | None:
        if value is None or value in self._tensors:
            return None if value is None else self._tensors[value]
        device = value.device if self._device is None else self._device
        twin = torch.empty(value.shape, dtype=value.dtype, device=device)
        if twin.device.type != "meta":
            twin.copy_(value.detach())
        if isinstance(value, nn.Parameter):
            twin = nn.Parameter(twin, value.requires_grad)
        self._tensors[value] = twin
        return twin
