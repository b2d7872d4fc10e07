"""Image models of timm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmsa_cache.errors import ModelError
from mmsa_cache.store.fingerprint import Fields

from .compat import prepare_torchvision
from .layers import check_layer, quarter_depth_layers, select_layer
from .limits import MAX_TENSOR, AllocationLimit, model_limit
from .model_errors import raise_model_errors
from .protocol import ImageOutput

_FEW_CONVOLUTIONS = 8


class TimmTower:
    """A timm model. Its own pooled vector is the class token, where it has one.

    Args:
        name: timm name.
        kwargs: Further arguments of ``timm.create_model``.
        file: safetensors weights, or None for random ones.
        side: Side of its square input in pixels.
        random_seed: Seed of random weights.

    Raises:
        ModelError: timm cannot build the model, it is too large, or the weights belong to another.
    """

    def __init__(
        self, name: str, kwargs: Fields, file: Path | None, side: int, random_seed: int | None
    ) -> None:
        with raise_model_errors(
            f"The image model {name} cannot be built",
            "Check [image] kwargs and that the weights belong to this model.",
        ):
            model = _build_model(name, {"num_classes": 0, **kwargs}, file, side, random_seed or 0)
        self._model = model.eval().requires_grad_(False)
        self._name = name
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))
        self._has_cls = self._prefix > 0 and getattr(model, "cls_token", None) is not None
        self._format = getattr(model, "output_fmt", None)
        # Convolutional networks run up to twice as fast in this layout (`mobilenetv2_100`: 1.9×,
        # `resnet50`: 1.5× on one CPU core). Transformers have a handful of convolutions at most.
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
        if convolutions > _FEW_CONVOLUTIONS:
            model.to(memory_format=torch.channels_last)

    def __call__(self, pixels: Tensor, layer: str | int, inner: Sequence[int] = ()) -> ImageOutput:
        states: dict[int, Tensor] = {}
        prefixes: dict[int, Tensor] = {}
        if layer == "last" and not inner:
            features = self._model.forward_features(pixels)
        else:
            features, states, prefixes = self._intermediates(pixels, layer, inner)
        if layer == "last":
            dim = int(self._model.num_features)
            grid = _grid(features, dim, self._format)
            sequence = to_patches(features, dim, self._format)
            prefix, patches = sequence[:, : self._prefix], sequence[:, self._prefix :]
        else:
            state = _select(states, layer, self._name)
            grid, patches = (state.shape[2], state.shape[3]), state.flatten(2).transpose(1, 2)
            prefix = _select(prefixes, layer, self._name) if self._prefix else patches[:, :0]
        if grid is None:
            side = math.isqrt(patches.shape[1])
            grid = (side, side) if side * side == patches.shape[1] else None
        vectors = {"cls": prefix[:, 0]} if self._has_cls else {}
        inner_patches = [states[number].flatten(2).transpose(1, 2) for number in inner]
        inner_cls = [prefixes[number][:, 0] for number in inner] if self._has_cls else []
        return ImageOutput(patches, grid, vectors, None, inner_patches, inner_cls)

    def _intermediates(
        self, pixels: Tensor, layer: str | int, inner: Sequence[int]
    ) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
        """Runs the model and returns inner layers too, as they are before the last norm.

        Returns:
            The output of ``forward_features``; patches by layer, (batch, dim, rows, columns) each;
            prefix tokens by layer, empty where the model has none.
        """
        if not hasattr(self._model, "forward_intermediates"):
            raise ModelError(
                f"{self._name} does not give its inner layers.",
                "Set layer to last, and no pool_layers.",
            )
        count = len(self._model.feature_info)
        numbers = sorted({*inner, *([layer] if isinstance(layer, int) else [])})
        for number in numbers:
            check_layer(number, count, self._name)
        if isinstance(layer, str) and layer != "last":
            numbers = list(range(count))
        arguments: dict[str, Any] = {"output_fmt": "NCHW", "indices": numbers}
        if not self._prefix:
            features, states = self._model.forward_intermediates(pixels, **arguments)
            return features, dict(zip(numbers, states, strict=True)), {}
        features, pairs = self._model.forward_intermediates(
            pixels, return_prefix_tokens=True, **arguments
        )
        named = dict(zip(numbers, pairs, strict=True))
        states = {number: pair[0] for number, pair in named.items()}
        return features, states, {number: pair[1] for number, pair in named.items()}

    def to(self, device: torch.device) -> object:
        return self._model.to(device)


def _build_model(name: str, arguments: Fields, file: Path | None, side: int, seed: int) -> Any:
    """Builds a timm model.

    Raises:
        ModelError: The model is too large, or takes pictures of another size.
        Exception: timm cannot build it, or the weights belong to another model.
    """
    prepare_torchvision()
    import timm

    weights = None if file is None else load_file(file)
    own_names = _weight_names(name, json.dumps(arguments), model_limit(weights), side)
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return timm.create_model(name, **arguments)
    if weights.keys() >= set(own_names):  # timm refuses those of a classifier that is not built
        weights = {key: weights[key] for key in own_names}
    overlay = {"state_dict": weights, "num_classes": arguments["num_classes"], "source": ""}
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    del model.pretrained_cfg["state_dict"]
    return model


@cache
def _weight_names(name: str, arguments: str, limit: int, side: int) -> tuple[str, ...]:
    """Names of a model's weights.

    The model is built without allocating memory and run on one picture. That takes ten times as
    long as building a small model, hence once a process.

    Args:
        name: timm name.
        arguments: Arguments of ``timm.create_model`` as JSON.
        limit: Bytes that the model may take.
        side: Side of the picture in pixels.

    Raises:
        ModelError: The model is too large, or takes pictures of another size.
        Exception: timm cannot build it.
    """
    import timm

    with AllocationLimit(name, limit, limit), torch.device("meta"):
        model = timm.create_model(name, **json.loads(arguments)).eval()
    try:
        with AllocationLimit(name, MAX_TENSOR), torch.inference_mode():
            model.forward_features(torch.zeros(1, 3, side, side, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{name} does not take pictures of {side}×{side}: {error}",
            "Set size in [image] (and img_size in kwargs) to what the model takes.",
        ) from error
    return tuple(model.state_dict())


@cache
def quarter_depth_blocks(name: str, arguments: str) -> tuple[int, ...]:
    """The blocks at a quarter, a half and three quarters of a model's depth; of 12: 2, 5 and 8.

    The model is built without allocating memory, once a process.

    Args:
        name: timm name.
        arguments: Further arguments of ``timm.create_model`` as JSON.

    Returns:
        Those with as many features as the model's output: of a hierarchical model none. None
        either of a model that cannot be built, or gives no inner layers.
    """
    prepare_torchvision()
    import timm

    try:
        with AllocationLimit(name, MAX_TENSOR), torch.device("meta"):
            model = timm.create_model(name, num_classes=0, **json.loads(arguments))
        if not hasattr(model, "forward_intermediates"):
            return ()
        widths = [int(block["num_chs"]) for block in model.feature_info]
    except Exception:  # building it in earnest says what is wrong
        return ()
    blocks = (layer - 1 for layer in quarter_depth_layers(len(widths)))
    return tuple(block for block in blocks if widths[block] == model.num_features)


def _select(states: dict[int, Tensor], layer: str | int, name: str) -> Tensor:
    """One layer, or the mean of the last K."""
    if isinstance(layer, int):
        return states[layer]
    return select_layer(list(states.values()), layer, name)


def _resolve_layout(shape: tuple[int, ...], dim: int, layout: str | None) -> str:
    """The layout of a feature map: ``NLC``, ``NHWC`` or ``NCHW``.

    Raises:
        ModelError: The shape is none of these.
    """
    if len(shape) == 3 and shape[-1] == dim:
        return "NLC"
    if len(shape) == 4:
        if layout not in ("NHWC", "NCHW"):
            layout = "NCHW" if shape[1] == dim else "NHWC"
        if shape[1 if layout == "NCHW" else 3] == dim:
            return layout
    raise ModelError(f"Cannot read a feature map of shape {shape} for {dim} features.")


def _grid(features: Tensor, dim: int, layout: str | None) -> tuple[int, int] | None:
    """(rows, columns) of a feature map; None for a sequence."""
    shape = tuple(features.shape)
    layout = _resolve_layout(shape, dim, layout)
    return None if layout == "NLC" else (shape[2:] if layout == "NCHW" else shape[1:3])  # type: ignore[return-value]


def to_patches(features: Tensor, dim: int, layout: str | None) -> Tensor:
    """Reshapes a feature map of any layout to (batch, patches, dim).

    Args:
        features: (batch, patches, dim), (batch, height, width, dim) or (batch, dim, height, width).
        dim: The model's number of features.
        layout: timm's ``output_fmt`` (``NHWC``, ``NCHW``, ``NLC``), or None to guess it.

    Raises:
        ModelError: The shape is none of these.
    """
    layout = _resolve_layout(tuple(features.shape), dim, layout)
    if layout == "NCHW":
        return features.flatten(2).transpose(1, 2)
    return features.flatten(1, 2) if layout == "NHWC" else features
