"""Options that all encoders share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmsa_cache.store.fingerprint import Fields


@dataclass(frozen=True, slots=True)
class Options:
    """Which features are kept and how they are computed."""

    layer: str | int = "last"
    """``last`` (the model's output), a number, or ``average:K``: the mean of the last K."""
    tokens: str = "keep"
    """``keep``, ``pool:GxG`` (patches averaged to a grid) or ``none``."""
    compute: str = "float32"
    """``float32``; ``bfloat16`` or ``float16`` by autocast; ``half``: everything in float16."""
    pool_layers: tuple[int, ...] = ()
    """Inner layers whose means, and class tokens of pictures, are further pools: ``mean@N``,
    ``cls@N``."""
    device: str = "cpu"
    """``cpu`` or ``cuda``: they add in different orders."""

    def fields(self, modality: str) -> Fields:
        """The options' part of the fingerprint."""
        fields: Fields = {
            "layer": self.layer,
            "tokens": self.tokens if modality == "image" or self.tokens == "none" else "keep",
            "compute": self.compute,
            "device": self.device,
            "storage": "float16",
        }
        if self.pool_layers:
            fields["pool_layers"] = list(self.pool_layers)
            if modality == "image":  # other features than before the class tokens were kept
                fields["inner_pools"] = ["mean", "cls"]
        return fields

    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) that patches are averaged to, or None."""
        match = re.fullmatch(r"pool:(\d+)x(\d+)", self.tokens)
        return (int(match[1]), int(match[2])) if match else None
