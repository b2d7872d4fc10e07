"""Means and standard deviations of features over batches."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from .batch import Batch

Moments = dict[str, tuple[Tensor, Tensor]]
"""(dim,) float32 each, of ``text``, ``image`` and every vector by its name."""


def compute_moments(batches: Iterable[Batch]) -> Moments:
    """Means and standard deviations over the real positions of all batches.

    Vectors of a modality that a row lacks do not count; where all lack it both are 0.
    """
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}
    for batch in batches:
        real = {
            "text": _real(batch.text, batch.text_mask),
            "image": _real(batch.image, batch.image_mask),
            **{name: _there(batch, name) for name in batch.vectors},
        }
        for name, values in real.items():
            exact = values.double()
            count, total, squares = sums.get(name, (0, 0.0, 0.0))
            sums[name] = (
                count + len(exact),
                total + exact.sum(0),
                squares + exact.square().sum(0),
            )
    return {
        name: (
            (total / count).float(),
            (squares / count - (total / count).square()).clamp_min(0).sqrt().float(),
        )
        for name, (rows, total, squares) in sums.items()
        for count in [max(1, rows)]
    }


def _there(batch: Batch, name: str) -> Tensor:
    """A vector of the rows that have its modality, (rows, dim)."""
    vector, present = batch.vectors[name], batch.present(name.partition("_")[0])
    return vector if present is None else vector[present]


def _real(sequence: Tensor, mask: Tensor | None) -> Tensor:
    """The real positions of sequences (batch, tokens, dim) one after another, (positions, dim)."""
    return sequence.flatten(0, 1) if mask is None else sequence[mask]
