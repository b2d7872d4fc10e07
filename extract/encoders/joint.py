"""Joint image-text models of transformers (CLIP, SigLIP, Chinese-CLIP, …), one side at a time.

Every such model has ``get_text_features`` and ``get_image_features``, which return the sequence and
the embedding in the shared space. The vector before the last projection is computed from the same
parts that these methods use; the result is checked against them when the model is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmsa_cache.errors import ModelError

from .layers import select_layers
from .protocol import ImageOutput, TextOutput
from .transformer import load_config


def check_joint(model: Any, name: str) -> None:
    """Checks that a model has a shared space.

    Raises:
        ModelError: It lacks one of the two methods.
    """
    if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
        raise ModelError(
            f"{name} ({type(model).__name__}) is not a joint image-text model.",
            "Use --text-model for it, or a CLIP-like model here.",
        )


class TextSide(NamedTuple):
    """The text side of a joint model, by its configuration."""

    limit: int
    """Longest token sequence."""
    depth: int
    """Number of layers."""


def read_text_side(folder: Path) -> TextSide:
    """Reads the configuration of a joint model's text side.

    Raises:
        ModelError: Its configuration is not a joint model's.
    """
    try:
        config = load_config(folder)  # adds the family's defaults
        return TextSide(_text_limit(config), int(config.text_config.num_hidden_layers))
    except Exception as error:  # transformers raises many kinds for a bad folder
        raise _not_joint(folder, error) from error


def read_image_depth(folder: Path) -> int:
    """Number of layers of a joint model's image side by its configuration; 0 if not stated.

    Raises:
        ModelError: Its configuration is not a joint model's.
    """
    try:
        depth = getattr(load_config(folder).vision_config, "num_hidden_layers", 0)
    except Exception as error:  # transformers raises many kinds for a bad folder
        raise _not_joint(folder, error) from error
    return depth if isinstance(depth, int) else 0


def _not_joint(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{folder} is not the folder of a joint image-text model: {error}",
        "Use --text-model and --image-model for other models.",
    )


def _text_limit(config: Any) -> int:
    """Longest token sequence. XLM-R reads the texts of AltCLIP, see `text_tower`."""
    side = config.text_config
    offset = side.pad_token_id + 1 if config.model_type == "altclip" else 0
    return int(side.max_position_embeddings) - offset


def _check_shared(shared: Tensor | None, expected: Tensor, name: str) -> None:
    """Checks that the embedding computed here is the model's own."""
    if (
        shared is None
        or shared.shape != expected.shape
        or not torch.allclose(shared, expected, atol=1e-5)
    ):
        raise ModelError(
            f"{name}: its parts do not give its own joint embedding.",
            "This family is not supported as a joint model; use --text-model and --image-model.",
        )


_MAX_PADDED = 4096
"""Tokens that every text is padded to, at most; 64 are usual."""


class JointTextTower:
    """The text side of a joint model.

    Args:
        model: The whole model; its image side is dropped.
        name: For errors.

    Raises:
        ModelError: It is not a joint model, or its embedding cannot be computed here.
    """

    def __init__(self, model: Any, name: str) -> None:
        check_joint(model, name)
        self._name = name
        self._model = model
        self._projection = getattr(model, "text_projection", None)
        limit = _text_limit(model.config)
        self.limit: int | None = limit
        # SigLIP reads 64 positions whatever the text, without a mask, and pools the last of them.
        self.full_length = model.config.model_type.startswith("siglip")
        if self.full_length and limit > _MAX_PADDED:
            raise ModelError(
                f"{name} pads every text to {limit} tokens, more than {_MAX_PADDED}.",
                "Check max_position_embeddings in its config.json.",
            )
        model.vision_model = None
        length = limit if self.full_length else 4
        ids = torch.ones(1, length, dtype=torch.int64)
        with torch.inference_mode():
            shared = self(ids, ids.bool(), "last").shared
            expected = model.get_text_features(input_ids=ids).pooler_output
        _check_shared(shared, expected, name)

    def __call__(
        self, ids: Tensor, mask: Tensor, layer: str | int, inner: Sequence[int] = ()
    ) -> TextOutput:
        arguments: dict[str, Any] = {
            "input_ids": ids,
            "output_hidden_states": layer != "last" or bool(inner),
        }
        if not self.full_length:
            arguments["attention_mask"] = mask.long()
        if self._projection is None:
            output = self._model.get_text_features(**arguments)
            vectors, shared = {}, output.pooler_output
        else:
            output = self._model.text_model(**arguments)
            pooled = output.pooler_output
            pooled = output.last_hidden_state[:, 0] if pooled is None else pooled
            vectors, shared = {"pooled": pooled}, self._projection(pooled)
        hidden, states = select_layers(output, layer, inner, self._name)
        return TextOutput(hidden, vectors, shared, states)

    def to(self, device: torch.device) -> object:
        return self._model.to(device)


class JointImageTower:
    """The image side of a joint model.

    Args:
        model: The whole model; its text side is dropped.
        name: For errors.

    Raises:
        ModelError: It is not a joint model, or its embedding cannot be computed here.
    """

    def __init__(self, model: Any, name: str) -> None:
        check_joint(model, name)
        self._name = name
        self._model = model
        self._projection = getattr(model, "visual_projection", None)
        model.text_model = None
        side = model.config.vision_config.image_size
        pixels = torch.zeros(1, 3, side, side)
        with torch.inference_mode():
            shared = self(pixels, "last").shared
            expected = model.get_image_features(pixel_values=pixels).pooler_output
        _check_shared(shared, expected, name)

    def __call__(self, pixels: Tensor, layer: str | int, inner: Sequence[int] = ()) -> ImageOutput:
        arguments: dict[str, Any] = {
            "pixel_values": pixels,
            "output_hidden_states": layer != "last" or bool(inner),
        }
        vectors: dict[str, Tensor] = {}
        if self._projection is None:
            output = self._model.get_image_features(**arguments)
            shared = output.pooler_output
        else:
            output = self._model.vision_model(**arguments)
            vectors["pooled"] = output.pooler_output
            shared = self._projection(output.pooler_output)
        hidden, states = select_layers(output, layer, inner, self._name)
        side = math.isqrt(hidden.shape[1])
        prefix = hidden.shape[1] - side * side
        if prefix:
            vectors = {"cls": hidden[:, 0], **vectors}
        inner_patches = [state[:, prefix:] for state in states]
        inner_cls = [state[:, 0] for state in states] if prefix else []
        patches = hidden[:, prefix:]
        return ImageOutput(patches, (side, side), vectors, shared, inner_patches, inner_cls)

    def to(self, device: torch.device) -> object:
        return self._model.to(device)
