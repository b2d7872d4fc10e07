"""Frozen image encoders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from extract.inputs.decode import DECODER, RESIZE, decoder_versions
from mmsa_cache.errors import ModelError
from mmsa_cache.names import unknown_name
from mmsa_cache.native.device import explain_out_of_memory
from mmsa_cache.store.fingerprint import Fields
from mmsa_cache.store.identity import EncoderIdentity

from .compat import prepare_torchvision
from .compute import (
    HALF,
    cast_weights,
    collect_features,
    launching,
    precision,
    stack_inputs,
    to_device,
)
from .joint import JointImageTower, read_image_depth
from .layers import inner_pools, pool_patches, quarter_depth_layers
from .limits import check_arguments, check_side
from .model_errors import raise_model_errors
from .options import Options
from .preparation import Squares
from .preprocessing import read_input_settings
from .protocol import Encoded, ImageTower, Size
from .timm_tower import TimmTower, quarter_depth_blocks
from .transformer import load_model, resolve_folder
from .weights import find_timm_file, weights_sha256


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image encoder, resolved to local files but not loaded."""

    name: str
    kwargs: Fields
    file: Path | None
    """safetensors weights, or None for random ones."""
    random_seed: int | None
    size: int
    """Side of the square input in pixels."""
    crop: float | None
    """Share of the short side that the centre crop keeps; None squashes."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: Path | None
    """Files of the joint model whose image side this is; None for a timm model."""
    options: Options
    source: Fields
    """What identifies the model's weights."""
    resample: str = "bicubic"
    """Interpolation of the resize: ``bicubic`` or ``bilinear``."""

    @property
    def fields(self) -> Fields:
        """The encoder's part of the fingerprint."""
        return {
            **self.source,
            "modality": "image",
            "size": self.size,
            "crop": self.crop,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": RESIZE.format(self.resample),
            "decoder": DECODER,
            "decoder_versions": decoder_versions(),
            **self.options.fields("image"),
        }

    @property
    def identity(self) -> EncoderIdentity:
        """Everything that changes the encoder's features."""
        return EncoderIdentity.of_fields(self.fields)

    @property
    def label(self) -> str:
        """Name for users; tells random weights."""
        return self.identity.label

    def computed_in(self, compute: str) -> ImageSpec:
        """The same encoder in another precision."""
        return replace(self, options=replace(self.options, compute=compute))

    def load(self, device: torch.device) -> ImageEncoder:
        """Loads the model."""
        with explain_out_of_memory(f"to load {self.name}"):
            return ImageEncoder(self, device)


def resolve_image(
    model: str,
    weights: str,
    kwargs: Fields,
    *,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
    fit: str,
    seed: int,
    options: Options = Options(),  # noqa: B008  (frozen)
    quarters: bool = False,
) -> ImageSpec:
    """Finds a timm model's weights and input settings. Does not load it.

    Args:
        model: timm name.
        weights: ``pretrained`` (hub), a safetensors file, or ``random``.
        kwargs: Further arguments of ``timm.create_model``.
        mean: Channel means (0–1), default the model's own.
        std: Channel deviations (0–1), default the model's own.
        size: Input side in pixels, default the model's own.
        fit: ``crop`` or ``squash``.
        seed: Seed of random weights.
        options: Layer, positions and precision.
        quarters: Take the blocks of `timm_tower.quarter_depth_blocks` as pool layers, in place of
            the options' own.

    Raises:
        ModelError: The model is unknown, its weights cannot be found, or an argument names files.
    """
    check_arguments(kwargs)
    prepare_torchvision()
    import timm

    if not re.fullmatch(r"\w+(\.\w+)?", model) or not timm.is_model(model.split(".")[0]):
        raise unknown_name("timm has no image model", model, timm.list_models(), kind=ModelError)
    pretrained = timm.models.get_pretrained_cfg(model)
    defaults = pretrained.to_dict() if pretrained is not None else {}
    if quarters:
        options = replace(options, pool_layers=quarter_depth_blocks(model, json.dumps(kwargs)))
    random_seed = seed if weights == "random" else None
    file, source = None, f"random:{seed}"
    if random_seed is None:
        file, source = _resolve_weights(model, weights, defaults.get("hf_hub_id"))
    return ImageSpec(
        name=model,
        kwargs=kwargs,
        file=file,
        random_seed=random_seed,
        size=check_side(size or int(defaults.get("input_size", (3, 224, 224))[-1]), model),
        crop=float(defaults.get("crop_pct") or 0.875) if fit == "crop" else None,
        mean=tuple(mean or defaults.get("mean") or (0.485, 0.456, 0.406)),
        std=tuple(std or defaults.get("std") or (0.229, 0.224, 0.225)),
        folder=None,
        options=options,
        source={"encoder": model, "kwargs": kwargs, "weights": source},
    )


def _resolve_weights(model: str, weights: str, hub_id: str | None) -> tuple[Path, str]:
    """The safetensors file of a timm model, and what identifies it."""
    if weights == "pretrained":
        return find_timm_file(model, hub_id)
    file = Path(weights)
    # Path.is_file raises for names that are too long.
    if not os.path.isfile(file) or file.suffix != ".safetensors":  # noqa: PTH113
        raise ModelError(
            f"--image-weights {weights[:200]} is not an existing .safetensors file.",
            "Give pretrained, random or a FILE.safetensors; pickled weights are never loaded.",
        )
    return file, weights_sha256(file)


def resolve_joint_image(
    model: str,
    weights: str,
    seed: int,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    quarters: bool = False,
) -> ImageSpec:
    """Finds the image side of a joint image-text model of transformers. Does not load it.

    Args:
        model: Hub name or folder.
        weights: ``pretrained`` or ``random``.
        seed: Seed of random weights.
        options: Layer, positions and precision.
        quarters: Take the layers at the quarters of its depth as pool layers, not the options' own.

    Raises:
        ModelError: The model cannot be found, or has no safetensors weights.
    """
    folder, name, source = resolve_folder(model, weights, seed)
    settings = read_input_settings(folder)
    if quarters:
        options = replace(options, pool_layers=quarter_depth_layers(read_image_depth(folder)))
    return ImageSpec(
        name=name,
        kwargs={},
        file=None,
        random_seed=seed if weights == "random" else None,
        folder=folder,
        options=options,
        source=source,
        **settings._asdict(),
    )


class ImageEncoder:
    """Patch features of pictures from one frozen model.

    Args:
        spec: The resolved model.
        device: Where it runs.

    Attributes:
        prepare: Pictures → squares.
        tower: The model.
        side: Side of its square input in pixels.
        crop: Share of the short side that the centre crop keeps; None squashes.
        mean: Channel means, (1, 3, 1, 1), on a 0–1 scale.
        std: Channel deviations, (1, 3, 1, 1), on a 0–1 scale.

    Raises:
        ModelError: The model cannot be built or run, or its patches do not form the grid asked for.
    """

    equal_inputs = True

    def __init__(self, spec: ImageSpec, device: torch.device) -> None:
        self.label = spec.label
        self._device = device
        self.options = spec.options
        self.side, self.crop = spec.size, spec.crop
        self.prepare = Squares(spec.size, spec.crop, spec.resample)
        self.mean = torch.tensor(spec.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(spec.std, device=device).view(1, -1, 1, 1)
        self._scale, self._shift = 1 / (255.0 * self.std), -self.mean / self.std
        self.pools: tuple[str, ...] = ()
        model = None if spec.folder is None else load_model(spec.folder, spec.random_seed)
        with raise_model_errors(
            f"{spec.name} does not take pictures of {spec.size}×{spec.size}",
            "Set size in [image] (and img_size in kwargs) to what the model takes.",
        ):
            self.tower: ImageTower = (
                TimmTower(spec.name, spec.kwargs, spec.file, spec.size, spec.random_seed)
                if model is None
                else JointImageTower(model, spec.name)
            )
            cast_weights(self.tower.to(device), spec.options.compute)
            probe = self.encode([torch.zeros(3, spec.size, spec.size, dtype=torch.uint8)])
        self.size = Size.of(probe, probe.lengths[0], ragged=False)

    def encode(self, batch: Sequence[Tensor]) -> Encoded:
        """Runs the model on one batch.

        Args:
            batch: Pictures, each (3, size, size) uint8.

        Returns:
            Patch features, row by row from the top left, and pooled vectors: the mean over
            patches (``mean``), the first patch (``first``, what the report calls CLS), the model's
            own (``cls`` or ``pooled``), and of each inner layer asked for the mean (``mean@N``) and
            the class token, where the model has one (``cls@N``).
        """
        pixels = stack_inputs(batch, self._device)
        with launching(self._device):
            return self._launch(to_device(pixels, self._device))

    def _launch(self, pixels: Tensor) -> Encoded:
        """Runs the model on pixels on the device, (batch, 3, size, size) uint8."""
        with torch.inference_mode(), precision(self._device, self.options.compute):
            values = (pixels * self._scale).add_(self._shift)  # (pixels / 255 − mean) / std
            patches, grid, vectors, shared, inner, inner_cls = self.tower(
                values.half() if self.options.compute == HALF else values,
                self.options.layer,
                self.options.pool_layers,
            )
        patches = patches.float()
        inner_vectors = {"mean": [state.float().mean(1) for state in inner]}
        if inner_cls:
            inner_vectors["cls"] = [vector.float() for vector in inner_cls]
        pools = {
            "mean": patches.mean(1),
            "first": patches[:, 0],
            **vectors,
            **inner_pools(inner_vectors, self.options.pool_layers, patches.shape[2], self.label),
        }
        self.pools = tuple(pools)
        patches = pool_patches(patches, grid, self.options, self.label)
        if self.options.tokens == "none":
            patches = patches[:, :0]
        lengths = [patches.shape[1]] * len(pixels)
        return collect_features(patches.flatten(0, 1), lengths, pools.values(), shared)
