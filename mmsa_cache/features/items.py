"""Which row of each modality stands for a sample; see `FeatureBank.items`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def list_items(tables: Sequence[Tensor], samples: NDArray[np.int64], variants: bool) -> Tensor:
    """See `FeatureBank.items`.

    Args:
        tables: Of each modality the rows of all samples, see `EncoderGroup`.
        samples: Sample indices.
        variants: Also the augmented copies.
    """
    chosen = torch.as_tensor(samples)
    width = min(table.shape[1] for table in tables) if variants else 1
    parts: list[Tensor] = []
    for variant in range(width):
        rows = torch.stack([chosen, *(table[chosen, variant] for table in tables)], 1)
        if variant:  # one of each half that the sample has, and of one at least
            there = rows[:, 1:] >= 0
            rows = rows[(there | (parts[0][:, 1:] < 0)).all(1) & there.any(1)]
        parts.append(rows)
    return torch.cat(parts)


def pair_variants(tables: Sequence[Tensor], items: Tensor, generator: torch.Generator) -> Tensor:
    """See `FeatureBank.pair_variants`; the tables are those of `list_items`."""
    originals = torch.stack([table[items[:, 0], 0] for table in tables], 1)
    copies = (items[:, 1:] != originals).any(1)
    chosen = items.clone()
    for column, table in enumerate(tables, start=1):
        rows = table[items[:, 0]]
        draw = torch.rand(len(items), generator=generator) * (rows >= 0).sum(1)
        drawn = rows.gather(1, draw.long()[:, None]).squeeze(1)
        chosen[:, column] = torch.where(copies, drawn, items[:, column])
    return chosen
