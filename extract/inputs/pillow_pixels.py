"""Pixels of pictures that Pillow has opened."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsa_cache.errors import BadFileError

from .decode import LIMITS
from .metadata import read_orientation
from .rgb import convert_to_rgb
from .strict import STRICT


def read_pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Converts an open picture as `decode.read_picture` does a file, at full size.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        BadFileError: The picture is too large, too small or too narrow, or cannot be decoded.
    """
    LIMITS.check(*image.size, name)
    if image.mode in ("I", "F"):  # the values of black and white are unknown
        raise BadFileError("cannot be decoded", f"{name}: grey of signed or fractional numbers")
    try:
        with STRICT:
            image.load()
            return convert_to_rgb(image, read_orientation(image) or 1)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds; all mean the file is bad
        raise BadFileError("cannot be decoded", f"{name}: cannot be decoded ({error})") from error
