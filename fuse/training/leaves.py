"""Parameters and buffers of several modules of one shape as common tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNED = 64
"""Every parameter begins at a multiple of so many numbers, as fast kernels want it."""


class FlatParameters:
    """Where each parameter lies among all numbers of a module, (modules, numbers).

    Args:
        parameters: Those of one module, all of one type.
        modules: Number of modules.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], modules: int) -> None:
        given = list(parameters)
        self._modules = modules
        self._shapes = [value.shape for value in given]
        self._sizes = [value.numel() for value in given]
        self._padded = [-(-size // _ALIGNED) * _ALIGNED for size in self._sizes]
        self._padding = given[0].detach().new_zeros(modules, _ALIGNED)

    def zeros(self) -> Tensor:
        """A tensor for all numbers, (modules, numbers)."""
        return self._padding.new_zeros(self._modules, sum(self._padded))

    def parts(self, numbers: Tensor) -> list[Tensor]:
        """The parameters among all numbers, (modules, numbers) or (numbers,), without copying."""
        lead = numbers.shape[:-1]
        return [
            part[..., :size].view(*lead, *shape)
            for part, size, shape in zip(
                numbers.split(self._padded, -1), self._sizes, self._shapes, strict=True
            )
        ]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The parameters, (modules, *shape) each or those of the only module, as all numbers."""
        pieces = []
        for part, size, padded in zip(parts, self._sizes, self._padded, strict=True):
            pieces.append(part.reshape(self._modules, size))
            if padded > size:
                pieces.append(self._padding[:, : padded - size])
        return torch.cat(pieces, 1)

    def bind(self, numbers: Tensor, modules: Sequence[nn.Module]) -> None:
        """Copies the parameters of modules to `numbers`, and lets the modules look there."""
        for own, module in zip(numbers, modules, strict=True):
            for part, parameter in zip(self.parts(own), module.parameters(), strict=True):
                parameter.data = part.copy_(parameter.detach())

    def keep(self, states: Sequence[dict[str, Any]], key: str, numbers: Tensor) -> None:
        """The same for an entry of each parameter's state in an optimiser, 0 if it is not there.

        Args:
            states: Of one module's parameters.
            key: Of the entry.
            numbers: Of that module, (numbers,).
        """
        for part, state in zip(self.parts(numbers), states, strict=True):
            if key in state:
                part.copy_(state[key].view_as(part))
            state[key] = part


def stack_buffers(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The buffers of modules by name, (modules, *shape); the modules look there afterwards."""
    named = [dict(module.named_buffers()) for module in modules]
    stacks = {name: torch.stack([of[name] for of in named]) for name in named[0]}
    for name, stack in stacks.items():
        owner, _, key = name.rpartition(".")
        for module, value in zip(modules, stack, strict=True):
            module.get_submodule(owner)._buffers[key] = value
    return stacks
