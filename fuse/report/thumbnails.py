"""Pictures small enough to lie inside a page, as JPEG data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

THUMBNAIL = 192
"""Longest side of a picture, in pixels."""
MAP = 128
"""Side of a picture with attention on it, in pixels."""
MAX_PIXELS = 64_000_000
"""A picture with more pixels is not decoded."""
_PICTURES = ("JPEG", "PNG", "WEBP", "BMP")
# Of the attention: faint, strong. Both stand out from grey, in light and dark surroundings.
_FAINT, _STRONG = np.array([190.0, 20.0, 60.0]), np.array([255.0, 225.0, 70.0])
_OPAQUE = 0.85


def thumbnail(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A picture file as ``uri``, ``width`` and ``height``, or None and the reason why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _opened(path), ""
    except FileNotFoundError:
        return None, "The picture is missing."
    except Exception:  # a damaged picture may raise nearly anything inside Pillow
        return None, "The picture cannot be opened."


def _opened(path: Path) -> dict[str, Any]:
    # Only the formats of the data: Pillow also knows some that start other programs.
    with Image.open(path, formats=_PICTURES) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"more than {MAX_PIXELS} pixels")
        opened.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return _embedded(picture)


def heated(picture: NDArray[np.uint8], strength: NDArray[np.float64]) -> dict[str, Any]:
    """A picture in grey with attention laid over it, from dark red to yellow.

    Args:
        picture: (height, width, 3) uint8.
        strength: 0 (not drawn) to 1 of each cell of a grid over the picture, (rows, columns).

    Returns:
        ``uri``, ``width`` and ``height``.
    """
    grey = Image.fromarray(picture).convert("L")
    grey.thumbnail((MAP, MAP))
    cells = Image.fromarray((strength.clip(0, 1) * 255).round().astype(np.uint8))
    heat = np.asarray(cells.resize(grey.size, Image.Resampling.BILINEAR), np.float64)[..., None]
    heat /= 255
    base = 20 + 0.75 * np.asarray(grey, np.float64)[..., None]  # bright pictures drown colours
    colour = _FAINT + heat * (_STRONG - _FAINT)
    mixed = base + _OPAQUE * np.sqrt(heat) * (colour - base)
    return _embedded(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)))


def _embedded(picture: Image.Image) -> dict[str, Any]:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=82, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode("ascii")
    return {"uri": uri, "width": picture.width, "height": picture.height}
