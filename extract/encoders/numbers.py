"""Text encoders without a model: some numbers of a text, by fixed rules, in one pool ``all``."""

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
    """Its name under ``encoder``, and what changes its numbers."""
    numbers: int
    """Of a text."""
    rule: Callable[[], Rule]
    """Makes the rule; its tables may take time to read."""

    @property
    def identity(self) -> EncoderIdentity:
        """What changes its features."""
        options = self.options.fields("text")
        kept = {key: value for key, value in options.items() if key not in ("layer", "pool_layers")}
        return EncoderIdentity.of_fields({**self.source, "modality": "text", **kept})

    @property
    def label(self) -> str:
        """Name for people."""
        return self.identity.label

    def computed_in(self, compute: str) -> NumbersSpec:
        """The same; no precision changes it."""
        return replace(self, options=replace(self.options, compute=compute))

    def load(self, device: torch.device) -> NumbersEncoder:
        """Makes the rule; it needs no device."""
        return NumbersEncoder(self)


class NumbersEncoder:
    """Numbers of texts.

    Args:
        spec: The rule.
    """

    equal_inputs = True
    pools: tuple[str, ...] = ("all",)

    def __init__(self, spec: NumbersSpec) -> None:
        self.label, self.options = spec.label, spec.options
        self.size = Size(0, False, spec.numbers, spec.numbers)
        self.prepare = Numbers(spec.rule)

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Puts numbers together: the work is done.

        Args:
            batch: Of `prepare`.

        Returns:
            The pool ``all``, and no positions.
        """
        numbers = torch.stack(list(batch))
        return collect_features(numbers[:0], [0] * len(batch), [numbers], None)
