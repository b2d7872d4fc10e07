"""Text encoders without a model: numbers computed from a text by a rule, in one pool ``all``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import EncoderIdentity

from .compute import collect_features
from .options import Options
from .preparation import Numbers, Rule
from .protocol import Encoded, Size


@dataclass(frozen=True, slots=True)
class NumbersSpec:
    """A rule and what identifies it."""

    options: Options
    source: Fields
    """The rule's name under ``encoder``, and everything that changes its numbers."""
    numbers: int
    """How many numbers a text has."""
    build_rule: Callable[[], Rule]
    """Builds the rule; its tables may take time to read."""

    @property
    def identity(self) -> EncoderIdentity:
        """Everything that changes the encoder's features."""
        options = self.options.fields("text")
        used = {key: value for key, value in options.items() if key not in ("layer", "pool_layers")}
        return EncoderIdentity.of_fields({**self.source, "modality": "text", **used})

    @property
    def label(self) -> str:
        """Name for users."""
        return self.identity.label

    def computed_in(self, compute: str) -> NumbersSpec:
        """The same encoder; precision changes nothing."""
        return replace(self, options=replace(self.options, compute=compute))

    def load(self, device: torch.device) -> NumbersEncoder:
        """Builds the rule; it needs no device."""
        return NumbersEncoder(self)


class NumbersEncoder:
    """Computes numbers of texts by a rule.

    Args:
        spec: The rule.
    """

    equal_inputs = True
    pools: tuple[str, ...] = ("all",)

    def __init__(self, spec: NumbersSpec) -> None:
        self.label, self.options = spec.label, spec.options
        self.size = Size(0, False, spec.numbers, spec.numbers)
        self.prepare = Numbers(spec.build_rule)

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Stacks the numbers that `prepare` computed into the pool ``all``; there are no tokens."""
        numbers = torch.stack(list(batch))
        return collect_features(numbers[:0], [0] * len(batch), [numbers], None)
