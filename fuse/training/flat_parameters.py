"""Parameters and buffers of several modules of one shape as shared tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNED = 64
"""Every parameter begins at a multiple of so many numbers, for fast kernels."""


class FlatParameters:
    """The layout of modules' parameters in one tensor, (modules, numbers).

    Args:
        parameters: Parameters of one module, all of one type.
        modules: Number of modules.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], modules: int) -> None:
        values = list(parameters)
        self._modules = modules
        self._shapes = [value.shape for value in values]
        self._sizes = [value.numel() for value in values]
        self._padded = [-(-size // _ALIGNED) * _ALIGNED for size in self._sizes]
        self._padding = values[0].detach().new_zeros(modules, _ALIGNED)

    def zeros(self) -> Tensor:
        """A new tensor of this layout, (modules, numbers)."""
        return self._padding.new_zeros(self._modules, sum(self._padded))

    def views(self, numbers: Tensor) -> list[Tensor]:
        """Views of each parameter in a tensor of this layout, (modules, numbers) or (numbers,)."""
        lead = numbers.shape[:-1]
        return [
            part[..., :size].view(*lead, *shape)
            for part, size, shape in zip(
                numbers.split(self._padded, -1), self._sizes, self._shapes, strict=True
            )
        ]

    def flatten(self, values: Sequence[Tensor]) -> Tensor:
        """Copies a value for each parameter to a new tensor of this layout.

        Args:
            values: (modules, *shape) each, or (*shape) of a single module.
        """
        pieces = []
        for value, size, padded in zip(values, self._sizes, self._padded, strict=True):
            pieces.append(value.reshape(self._modules, size))
            if padded > size:
                pieces.append(self._padding[:, : padded - size])
        return torch.cat(pieces, 1)

    def bind(self, numbers: Tensor, modules: Sequence[nn.Module]) -> None:
        """Copies the parameters of modules to `numbers`, and makes them views of it."""
        for row, module in zip(numbers, modules, strict=True):
            for view, parameter in zip(self.views(row), module.parameters(), strict=True):
                parameter.data = view.copy_(parameter.detach())

    def bind_states(self, states: Sequence[dict[str, Any]], key: str, numbers: Tensor) -> None:
        """Does the same with an entry of the optimiser's state; a missing one becomes 0.

        Args:
            states: State of each parameter of one module.
            key: Name of the entry.
            numbers: Row of that module, (numbers,).
        """
        for view, state in zip(self.views(numbers), states, strict=True):
            if key in state:
                view.copy_(state[key].view_as(view))
            state[key] = view


def stack_buffers(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The buffers of modules by name, (modules, *shape); those of the modules become views."""
    named = [dict(module.named_buffers()) for module in modules]
    stacks = {name: torch.stack([buffers[name] for buffers in named]) for name in named[0]}
    for name, stack in stacks.items():
        owner, _, key = name.rpartition(".")
        for module, value in zip(modules, stack, strict=True):
            module.get_submodule(owner)._buffers[key] = value
    return stacks
