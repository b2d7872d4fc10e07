"""Pictures that are open already, as Pillow has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmsa_cache.errors import BadFileError

from .decode import LIMITS, convert_to_rgb
from .metadata import orientation
from .strict import STRICT


def read_pixels(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Pixels of a picture as `decode.read_picture` makes them of a file, always at full size.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        BadFileError: It is too large, too small or too narrow, or cannot be read.
    """
    LIMITS.check(*image.size, name)
    if image.mode in ("I", "F"):  # black and white are anywhere
        raise BadFileError("cannot be decoded", f"{name}: grey of signed or fractional numbers")
    try:
        with STRICT:
            image.load()
            return convert_to_rgb(image, orientation(image) or 1)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds; all mean the file is bad
        raise BadFileError("cannot be decoded", f"{name}: cannot be decoded ({error})") from error
