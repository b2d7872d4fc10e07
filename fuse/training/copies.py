"""One copy a post: a post counts once, however many augmented copies it has."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_one_copy(items: Tensor, order: torch.Generator) -> Tensor:
    """One of the items of every post, each as likely as the others, (posts, 3).

    Args:
        items: Of `FeatureBank.items`, (items, 3).
        order: Draws them, and their order.
    """
    shuffled = items[torch.randperm(len(items), generator=order)]
    posts, post = shuffled[:, 0].unique(return_inverse=True)
    none = torch.full((len(posts),), len(items))
    return shuffled[none.scatter_reduce(0, post, torch.arange(len(items)), "amin")]


def row_weights(items: Tensor) -> Tensor:
    """How much of its post every item is, 1 / (1 + copies), (items,) float64."""
    _, post, rows = items[:, 0].unique(return_inverse=True, return_counts=True)
    return 1 / rows[post].double()
