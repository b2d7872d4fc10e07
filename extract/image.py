"""Frozen timm image encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa_cache.errors import ModelError
from mmsa_cache.fingerprint import file_sha256

from .compat import prepare_torchvision
from .decode import DECODER, RESIZE, fit_square
from .weights import timm_file


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image encoder, resolved to local files but not loaded."""

    name: str
    kwargs: dict[str, Any]
    file: Path | None
    """safetensors weights, or None for random ones."""
    random_seed: int | None
    size: int
    """Side of the square input in pixels."""
    crop: float | None
    """Share the centre crop keeps; None squashes."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fields: dict[str, Any]
    """The encoder's part of the fingerprint."""

    @property
    def label(self) -> str:
        """Name for people; says so where the weights are random."""
        return self.name + (" (random weights)" if self.random_seed is not None else "")


def resolve_image(
    model: str,
    weights: str,
    kwargs: dict[str, Any],
    *,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
    fit: str,
    seed: int,
) -> ImageSpec:
    """Finds a timm model's weights and input settings, without building it.

    Args:
        model: timm name.
        weights: ``pretrained`` (hub), a safetensors file, or ``random``.
        kwargs: Further arguments of ``timm.create_model``.
        mean: Channel means (0–1), default the model's own.
        std: Channel deviations (0–1), default the model's own.
        size: Input side in pixels, default the model's own.
        fit: ``crop`` or ``squash``.
        seed: Seed of random weights.

    Raises:
        ModelError: Unknown model, or weights that cannot be found.
    """
    prepare_torchvision()
    import timm

    if not timm.is_model(model.split(".")[0]):
        near = ", ".join(timm.list_models(f"*{model.split('.')[0][:8]}*")[:6]) or "none"
        raise ModelError(f"timm has no image model {model!r}.", f"Names that look alike: {near}.")
    own = timm.models.get_pretrained_cfg(model)
    own = own.to_dict() if own is not None else {}
    file: Path | None = None
    if weights == "random":
        source = f"random:{seed}"
    elif weights == "pretrained":
        file, source = timm_file(model, own.get("hf_hub_id"))
    else:
        file = Path(weights)
        if not file.is_file() or file.suffix != ".safetensors":
            raise ModelError(
                f"--image-weights {weights} is not an existing .safetensors file.",
                "Give pretrained, random or a FILE.safetensors; pickled weights are never loaded.",
            )
        source = file_sha256(file)
    pixels = size or int(own.get("input_size", (3, 224, 224))[-1])
    crop = float(own.get("crop_pct") or 0.875) if fit == "crop" else None
    channel_mean = tuple(mean or own.get("mean") or (0.485, 0.456, 0.406))
    channel_std = tuple(std or own.get("std") or (0.229, 0.224, 0.225))
    fields = {
        "modality": "image",
        "encoder": model,
        "kwargs": kwargs,
        "weights": source,
        "size": pixels,
        "crop": crop,
        "mean": list(channel_mean),
        "std": list(channel_std),
        "resize": RESIZE,
        "decoder": DECODER,
        "layer": "last",
        "compute": "float32",
        "storage": "float16",
    }
    return ImageSpec(
        model,
        kwargs,
        file,
        seed if weights == "random" else None,
        pixels,
        crop,
        channel_mean,
        channel_std,
        fields,
    )


class ImageEncoder:
    """Patch features of pictures from one frozen model.

    Args:
        spec: The resolved model.
        device: Where it runs.

    Raises:
        ModelError: timm cannot build it, or the weights do not fit.
    """

    def __init__(self, spec: ImageSpec, device: torch.device) -> None:
        prepare_torchvision()
        import timm

        arguments: dict[str, Any] = {"num_classes": 0, **spec.kwargs}
        if spec.file is not None:
            arguments |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(spec.file)}}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(spec.random_seed or 0)
                model = timm.create_model(spec.name, **arguments)
        except Exception as error:  # timm raises many kinds for wrong kwargs or weights
            raise ModelError(
                f"The image model {spec.name} cannot be built: {error}",
                "Check [image] kwargs and that the weights belong to this model.",
            ) from error
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = device
        self._size, self._crop = spec.size, spec.crop
        self._mean = torch.tensor(spec.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(spec.std, device=device).view(1, -1, 1, 1)
        self.label = spec.label
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))
        self._has_cls = self._prefix > 0 and getattr(model, "cls_token", None) is not None
        self._format = getattr(model, "output_fmt", None)
        self.pools = ("mean", "first", "cls") if self._has_cls else ("mean", "first")
        try:
            probe, _ = self.encode([torch.zeros(3, spec.size, spec.size, dtype=torch.uint8)])
        except (AssertionError, RuntimeError) as error:
            raise ModelError(
                f"{spec.name} does not take pictures of {spec.size}×{spec.size}: {error}",
                "Set size in [image] (and img_size in kwargs) to what the model takes.",
            ) from error
        self.dim = probe[0].shape[-1]

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """(height, width, 3) uint8 → (3, size, size) uint8."""
        return fit_square(image, self._size, self._crop)

    def encode(self, batch: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Runs the model on one batch.

        Args:
            batch: Pictures, each (3, size, size) uint8.

        Returns:
            Patch features, each (patches, dim), row by row from the top left, and pooled vectors
            (batch, pools, dim): ``mean`` over patches, ``first`` patch (what the report calls
            CLS), and ``cls`` where the model has one. float32, on the CPU.
        """
        pixels = torch.stack(list(batch)).to(self._device)
        with torch.inference_mode():
            features = self._model.forward_features((pixels / 255.0 - self._mean) / self._std)
        features = features.float().cpu()
        patches = to_patches(features, int(self._model.num_features), self._format)
        cls, patches = patches[:, :1], patches[:, self._prefix :]
        pools = [patches.mean(1), patches[:, 0]] + ([cls[:, 0]] if self._has_cls else [])
        return list(patches), torch.stack(pools, 1)


def to_patches(features: Tensor, dim: int, layout: str | None) -> Tensor:
    """Brings a feature map of any layout to (batch, patches, dim).

    Args:
        features: (batch, patches, dim), (batch, height, width, dim) or (batch, dim, height, width).
        dim: The model's number of features.
        layout: timm's ``output_fmt`` (``NHWC``, ``NCHW``, ``NLC``), or None: found from the shape.

    Raises:
        ModelError: The shape is none of these.
    """
    shape = tuple(features.shape)
    if features.ndim == 3 and shape[-1] == dim:
        return features
    if features.ndim == 4:
        if layout is None or str(layout) not in ("NHWC", "NCHW"):
            layout = "NCHW" if shape[1] == dim else "NHWC"
        if str(layout) == "NCHW" and shape[1] == dim:
            return features.flatten(2).transpose(1, 2)
        if str(layout) == "NHWC" and shape[-1] == dim:
            return features.flatten(1, 2)
    raise ModelError(f"Cannot read a feature map of shape {shape} for {dim} features.")
