"""Pools that no encoder stores: figures of the tokens, position by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Read = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Sequences (batch, tokens, dim) float16 and mask of rows, see `ModalityFeatures.sequences`."""
_ROWS = 256


def _largest(x: Tensor, real: Tensor) -> Tensor:
    return x.masked_fill(~real, -torch.inf).amax(1)


def _smallest(x: Tensor, real: Tensor) -> Tensor:
    return x.masked_fill(~real, torch.inf).amin(1)


def _deviation(x: Tensor, real: Tensor) -> Tensor:
    count = real.sum(1)
    off = (x - (x * real).sum(1, keepdim=True) / count[:, None]) * real
    return (off.square().sum(1) / count).sqrt()


COMPUTED: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max": _largest,
    "min": _smallest,
    "std": _deviation,
}
"""Each feature's largest and smallest value and standard deviation (divided by the positions, not
one less) over the real positions, by name: from (batch, tokens, dim) float32 and
(batch, tokens, 1), True = real, to (batch, dim)."""


def compute_pool(name: str, rows: int, read: Read) -> Tensor:
    """One of `COMPUTED` for rows 0 … `rows` − 1, (rows, dim) of the tokens' type."""
    parts = []
    for part in torch.arange(rows).split(_ROWS):
        tokens, mask = read(part)
        real = mask if mask is not None else tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        parts.append(COMPUTED[name](tokens.float(), real[..., None]).to(tokens.dtype))
    return torch.cat(parts)
