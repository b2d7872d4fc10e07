"""A bank as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmsa_cache.notebook import as_html

from .encoder_group import EncoderGroup


def bank_html(sides: Mapping[str, EncoderGroup], labels: Tensor) -> str:
    """Samples by class code, and what each modality's features are.

    Args:
        sides: By modality.
        labels: Class codes, −1 where unknown, (samples,).
    """
    codes, counts = labels.unique(return_counts=True)
    rows = [
        [m, Path(of.name).name, len(of.pooled), of.dim, ", ".join(of.pools), of.longest or None]
        for m, side in sides.items()
        for of in side.encoders
    ]
    facts = {
        "samples": len(labels),
        "by class code": ", ".join(
            f"{c}: {n}" for c, n in zip(codes.tolist(), counts.tolist(), strict=True)
        ),
        "device": sides["text"].own.device,
    }
    return as_html(
        "FeatureBank", facts, ["modality", "features", "rows", "dim", "pools", "most tokens"], rows
    )
