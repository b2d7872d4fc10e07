"""Conversion of Pillow's pictures to RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRIP_ROWS = 256
_ORIENTATIONS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}
"""EXIF's orientations: whether to swap rows and columns, and the axes to reverse after that."""


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture has transparent parts."""
    return image.mode in ("PA", "LA", "RGBA", "RGBa") or "transparency" in image.info


def convert_to_rgb(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Converts a picture to RGB and turns it.

    It is converted in strips: each conversion of Pillow makes a picture of 4 bytes a pixel, and
    some pictures take several.

    Args:
        image: A loaded picture of any mode.
        orientation: By EXIF, 1 to 8.

    Returns:
        (height, width, 3)
    """
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(top + _STRIP_ROWS, height)
        pixels[top:bottom] = _strip_to_rgb(image.crop((0, top, width, bottom)))
    if orientation not in _ORIENTATIONS:
        return pixels
    transposed, reversed_axes = _ORIENTATIONS[orientation]
    turned = pixels.transpose(1, 0, 2) if transposed else pixels
    return np.ascontiguousarray(np.flip(turned, reversed_axes))


def _strip_to_rgb(strip: Image.Image) -> NDArray[np.uint8]:
    if strip.mode.startswith("I"):  # 16 bits a pixel, which Pillow's convert would clip to white
        grey = np.clip((np.asarray(strip, np.float64) / 257.0).round(), 0, 255).astype(np.uint8)
        return grey[:, :, None]
    if strip.mode == "P" or has_alpha(strip):
        layer = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(strip.convert("RGB"))
