"""Text models of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .families import is_causal
from .layers import select_layers
from .protocol import TextOutput


class PlainTower:
    """A text model of `transformers.AutoModel`.

    Its pooled vector is the first position (``cls``). Models that read forward only have the last
    token (``last``): their first position is the same for all texts that begin alike.

    Args:
        model: The loaded model.
        name: For errors.
    """

    full_length = False

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self._causal = is_causal(model.config.to_dict())
        self.limit = _position_limit(model)

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long(),
            output_hidden_states=layer != "last" or bool(inner),
        )
        hidden, states = select_layers(output, layer, inner, self._name)
        if self._causal:
            last_index = mask.sum(1)[:, None, None] - 1
            last = hidden.take_along_dim(last_index, 1).squeeze(1)
            return TextOutput(hidden, {"last": last}, None, states)
        return TextOutput(hidden, {"cls": hidden[:, 0]}, None, states)

    def to(self, device: torch.device) -> object:
        return self._model.to(device)


def _position_limit(model: torch.nn.Module) -> int | None:
    """Longest sequence that a model takes.

    RoBERTa and its relatives count positions from the padding index + 1, which is why their table
    of positions has a padding index.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None or limit < 1:  # DeBERTa writes −1 where only relative positions count
        return None
    padding_indices = [
        module.padding_idx
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return int(limit) - max((int(index) + 1 for index in padding_indices), default=0)
