"""Choice of layers and averaging of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_cache.errors import ModelError

from .options import Options


def check_layer(layer: int, count: int, name: str) -> None:
    """Checks that a model has a layer.

    Raises:
        ModelError: ``layer`` is not below ``count``.
    """
    if layer >= count:
        raise ModelError(
            f"{name} has the layers 0 … {count - 1}, layer {layer} is asked for.",
            "Set layer to one of them, to average:K or to last; pool_layers to some of them.",
        )


def quarter_depth_layers(depth: int) -> tuple[int, ...]:
    """The layers at a quarter, a half and three quarters of a depth; of 6 layers: 1, 3 and 4."""
    numbers = dict.fromkeys(depth * k // 4 for k in (1, 2, 3))
    return tuple(number for number in numbers if 1 <= number < depth)


def select_layer(states: Sequence[Tensor], layer: str | int, name: str) -> Tensor:
    """Features of one layer, or the mean of the last K.

    Args:
        states: Features after every layer; of one shape where they are averaged.
        layer: A number from 0, or ``average:K``.
        name: The model, for errors.

    Raises:
        ModelError: There is no such layer, or the layers' shapes differ.
    """
    count = len(states)
    if isinstance(layer, int):
        check_layer(layer, count, name)
        return states[layer]
    last = int(layer.removeprefix("average:"))
    if not 1 <= last <= count or len({tuple(state.shape) for state in states[-last:]}) > 1:
        raise ModelError(
            f"{name}: the last {last} of {count} layers cannot be averaged.",
            "They must exist and have one shape: a hierarchical model's stages differ.",
        )
    return torch.stack([state.float() for state in states[-last:]]).mean(0)


def select_layers(
    output: Any, layer: str | int, inner: Sequence[int], name: str
) -> tuple[Tensor, list[Tensor]]:
    """Features of the chosen layer and of the inner layers, from an output of transformers."""
    hidden = output.last_hidden_state
    if layer != "last":
        hidden = select_layer(output.hidden_states, layer, name)
    return hidden, [select_layer(output.hidden_states, number, name) for number in inner]


def inner_pools(
    vectors: Mapping[str, Sequence[Tensor]], layers: Sequence[int], dim: int, name: str
) -> dict[str, Tensor]:
    """Vectors of inner layers by the names of their pools, ``POOL@N``.

    Args:
        vectors: One a layer by what they are, ``mean`` or ``cls``, (batch, features) each.
        layers: Their layers' numbers.
        dim: Features of the chosen layer.
        name: The model, for errors.

    Raises:
        ModelError: An inner layer has another number of features than the chosen one.
    """
    pools: dict[str, Tensor] = {}
    for pool, of_layers in vectors.items():
        for layer, vector in zip(layers, of_layers, strict=True):
            if vector.shape[1] != dim:
                raise ModelError(
                    f"{name}: layer {layer} has {vector.shape[1]} features, the layer that is kept "
                    f"has {dim}; one cache cannot hold both.",
                    "Leave it out of pool_layers: a hierarchical model's stages differ.",
                )
            pools[f"{pool}@{layer}"] = vector
    return pools


def average_grid(patches: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Averages patches to a coarser grid.

    Args:
        patches: (batch, rows · columns, dim), row by row from the top left.
        grid: (rows, columns) of the patches.
        target: (rows, columns) of the result.

    Returns:
        (batch, target rows · target columns, dim)
    """
    feature_map = patches.transpose(1, 2).unflatten(2, grid)
    return F.adaptive_avg_pool2d(feature_map, target).flatten(2).transpose(1, 2)


def pool_patches(
    patches: Tensor, grid: tuple[int, int] | None, options: Options, label: str
) -> Tensor:
    """Averages patches to the grid that the options ask for, if they do.

    Args:
        patches: (batch, rows · columns, dim), row by row from the top left.
        grid: (rows, columns) of the patches; None where they form no grid.
        options: ``tokens`` names the grid.
        label: The model, for errors.

    Raises:
        ModelError: The patches form no grid, or a coarser one than is asked for.
    """
    target = options.grid()
    if target is None:
        return patches
    if grid is None or target[0] > grid[0] or target[1] > grid[1]:
        size = f"{grid[0]}×{grid[1]}" if grid else f"{patches.shape[1]} without a grid"
        raise ModelError(
            f"{label} has {size} patches, tokens = {options.tokens!r} asks for "
            f"{target[0]}×{target[1]}.",
            "Ask for at most as many, or for keep or none.",
        )
    return average_grid(patches, grid, target)
