"""Settings that prepare pictures for a joint model as its own processor does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from mmsa_cache.errors import ModelError

from .folder import CONFIG, read_json
from .limits import check_side

# CLIP's own values, which most of its kin share: openai/clip, preprocessor_config.json.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
"""File that transformers 5 writes; its ``image_processor`` takes precedence."""
_RESAMPLE = {1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers. Lanczos (1), which torch lacks, is close to bicubic."""


class InputSettings(NamedTuple):
    """Preparation of pictures for a model's square input."""

    size: int
    """Side in pixels."""
    crop: float | None
    """Share of the resized short side that the centre crop keeps; None squashes."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str
    """``bicubic`` or ``bilinear``."""


def read_input_settings(folder: Path) -> InputSettings:
    """Reads the settings of a joint model's processor; where it has none, takes CLIP's.

    Args:
        folder: The model's files.

    Raises:
        ModelError: The files are unreadable, or their values do not suit pictures.
    """
    nested = read_json(folder, PROCESSOR).get("image_processor")
    settings = read_json(folder, PREPROCESSOR) if nested is None else nested
    try:
        vision = read_json(folder, CONFIG).get("vision_config") or {}
        size, crop = _size_and_crop(settings, int(vision.get("image_size", 224)))
        mean, std = _mean_and_std(settings)
        resample = _RESAMPLE.get(settings.get("resample", 3))
        if resample is None:
            raise ValueError(f"resample is {settings['resample']!r}, which is neither of 1, 2, 3")
        return InputSettings(check_side(size, str(folder)), crop, mean, std, resample)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        name = PREPROCESSOR if nested is None else PROCESSOR
        raise ModelError(
            f"{folder / name} cannot be read: {error}", "Give a Hugging Face model folder."
        ) from error


def _size_and_crop(settings: dict[str, Any], default: int) -> tuple[int, float | None]:
    """Side of the input in pixels, and its share of the resized short side.

    Args:
        settings: Of the processor.
        default: Side by the model's configuration, for settings that state none.
    """
    if not settings.get("do_resize", True):
        raise ValueError("do_resize is false, pictures are of any size")
    size, crop = settings.get("size"), settings.get("crop_size")
    resizes_to_square = isinstance(size, dict) and "height" in size
    short = (size.get("height") or size.get("shortest_edge")) if isinstance(size, dict) else size
    if not settings.get("do_center_crop", not settings):
        return int(short or default), None
    side = int((crop.get("height") if isinstance(crop, dict) else crop) or short or default)
    short = int(short or side)
    if short < side or (resizes_to_square and short > side):
        raise ValueError(f"the crop of {side} pixels does not fit to the size {size}")
    if resizes_to_square:
        return side, None
    share = side / short
    return side, share if math.floor(side / share) == short else math.nextafter(share, 0)


def _mean_and_std(settings: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Means and deviations of the channels on a 0–1 scale."""
    mean, std = (
        tuple(map(float, settings.get(name) or default))
        for name, default in (("image_mean", _CLIP_MEAN), ("image_std", _CLIP_STD))
    )
    if not settings.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)):
        raise ValueError("image_mean and image_std are not three numbers each")
    scale = 255 * (
        float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 1
    )
    if math.isclose(scale, 1):
        return mean, std
    return tuple(m / scale for m in mean), tuple(s / scale for s in std)
