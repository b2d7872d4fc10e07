"""Picture bytes → (height, width, 3) uint8 RGB → square model input.

Plain JPEGs go through libjpeg-turbo (simplejpeg), everything else through Pillow. A JPEG that is
far larger than the model's input is decoded at 1/2, 1/4 or 1/8 of its size, never below twice the
need, so that the resize after it still does the smoothing (what Pillow's ``thumbnail`` does by
default); photographs of many megapixels then cost little more than small ones. The resize is
torch's antialiased bicubic on uint8.
"""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from mmsa_cache.errors import DataError

DECODER = "simplejpeg+pillow, jpeg reduced to twice the need"
RESIZE = "torch-bicubic-antialias-uint8"
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
MIN_SIDE = 8
MAX_ASPECT = 50.0


def decode(data: bytes, name: str, needed: int | None = None) -> NDArray[np.uint8]:
    """Decodes one picture; EXIF rotation applied, alpha composed on white.

    Args:
        data: The file's bytes.
        name: What to call the picture in errors.
        needed: Pixels that the short side is resized to later; a JPEG is then decoded no larger
            than needed. None: always at full size.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        DataError: Truncated, foreign, too small, too large or too narrow.
    """
    least = 0 if needed is None else 2 * needed
    fast = _decode_plain_jpeg(data, name, least)
    if fast is not None:
        return fast
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.width, image.height, name)
                if least and image.format == "JPEG":
                    image.draft(None, (least, least))
                image.load()
                return _to_rgb(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds; all mean the file is bad
        raise DataError(f"{name}: cannot be decoded ({error})") from error


def _decode_plain_jpeg(data: bytes, name: str, least: int) -> NDArray[np.uint8] | None:
    """None where the picture needs Pillow: other format, CMYK, EXIF, or anything odd."""
    if not data.startswith(b"\xff\xd8\xff") or b"Exif\0\0" in data[: 1 << 16]:
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, name)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return None
        # libjpeg-turbo would take any eighth; only the halvings have fast paths.
        part = next((p for p in (8, 4, 2) if least and min(height, width) >= p * least), 1)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // part), min_width=-(-width // part)
        )
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        return None
    return pixels


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{name}: {width}×{height} pixels, more than the limit of {MAX_PIXELS}")
    if min(width, height) < MIN_SIDE:
        raise DataError(f"{name}: {width}×{height} pixels, a side is shorter than {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{name}: {width}×{height} pixels, longer than {MAX_ASPECT:.0f} : 1")


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16 bits a pixel: a plain convert would clip it to white
        pixels = np.asarray(image, np.float64) / 257.0
        image = Image.fromarray(np.clip(pixels.round(), 0, 255).astype(np.uint8))
    turned = ImageOps.exif_transpose(image)
    if turned.mode in ("P", "PA", "LA", "RGBA", "La", "RGBa") or "transparency" in turned.info:
        layer = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(turned.convert("RGB"))  # a copy: Pillow's own memory may not be written to


def needed_side(size: int, crop: float | None) -> int:
    """Pixels that the short side of a picture is resized to before the crop."""
    return size if crop is None else math.floor(size / crop)


def fit_square(image: NDArray[np.uint8], size: int, crop: float | None) -> Tensor:
    """Brings a picture to the model's square input.

    Args:
        image: (height, width, 3) uint8.
        size: Side of the result in pixels.
        crop: Share of the resized short side that the centre crop keeps (timm's ``crop_pct``);
            None squashes the whole picture into the square.

    Returns:
        (3, size, size) uint8.
    """
    pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
    height, width = pixels.shape[-2:]
    if crop is None:
        target = (size, size)
    else:
        short = needed_side(size, crop)
        scale = short / min(height, width)
        target = (max(short, round(height * scale)), max(short, round(width * scale)))
    pixels = F.interpolate(pixels, target, mode="bicubic", antialias=True)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return pixels[0, :, top : top + size, left : left + size].contiguous()
