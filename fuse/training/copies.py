"""Posts that count once, however many augmented copies they have."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_one_copy(items: Tensor, order: torch.Generator) -> Tensor:
    """One of the items of each post, all equally likely, (posts, 3).

    Args:
        items: Items of `FeatureBank.items`, (items, 3).
        order: Draws the items.
    """
    shuffled = items[torch.randperm(len(items), generator=order)]
    posts, post = shuffled[:, 0].unique(return_inverse=True)
    first = torch.full((len(posts),), len(items))
    return shuffled[first.scatter_reduce(0, post, torch.arange(len(items)), "amin")]


def row_weights(items: Tensor) -> Tensor:
    """The weight of each item, 1 / (1 + copies of its post), (items,) float64."""
    _, post, counts = items[:, 0].unique(return_inverse=True, return_counts=True)
    return 1 / counts[post].double()
