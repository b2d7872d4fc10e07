"""The classifier on top of the fused vector."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Head(nn.Module):
    """(Linear → BatchNorm → LeakyReLU → Dropout) for every hidden size, then Linear to the classes.

    Batch normalisation has no variance to take from a single row: in training mode a batch needs at
    least two samples (PyTorch raises otherwise), so a trainer drops or merges a last batch of one.

    Args:
        in_dim: length of the fused vector.
        classes: number of classes.
        dropout: probability after each hidden layer.
        dims: hidden sizes, the report's by default; empty gives a linear classifier.
    """

    def __init__(
        self, in_dim: int, classes: int, dropout: float, dims: Sequence[int] = (1024, 256)
    ) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for dim in dims:
            modules += [
                nn.Linear(in_dim, dim),
                nn.BatchNorm1d(dim),
                nn.LeakyReLU(),
                nn.Dropout(dropout),
            ]
            in_dim = dim
        modules.append(nn.Linear(in_dim, classes))
        self.layers = nn.Sequential(*modules)

    def forward(self, fused: Tensor) -> Tensor:
        """``(batch, in_dim)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.layers(fused)
        return logits
