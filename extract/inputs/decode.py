"""Decoding: picture bytes → (height, width, 3) uint8 RGB → square model input.

libjpeg-turbo (simplejpeg) decodes plain JPEGs, Pillow everything else. A JPEG that is far larger
than the model's input is decoded at 1/2, 1/4 or 1/8 of its size, but at least at twice the size
needed, so that the resize still does the smoothing (as Pillow's ``thumbnail`` does by default).
Photographs of many megapixels then cost little more than small ones. The resize is torch's
antialiased bicubic on uint8.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import math
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mmsa_cache.data.pairs import image_format
from mmsa_cache.errors import BadFileError, DeviceError

from .metadata import (
    check_heif,
    check_scans,
    check_tiff,
    has_frames,
    prepare_tiff,
    read_orientation,
)
from .rgb import convert_to_rgb, has_alpha
from .strict import STRICT

DECODER = "simplejpeg+pillow, jpeg reduced to twice the need"
DECODER_LIBRARIES = ("simplejpeg", "pillow")
RESIZE = "torch-{}-antialias-uint8"
"""``bicubic`` or ``bilinear``."""
_PIXEL_DIVISORS = {"WEBP": 2, "AVIF": 2, "RLE": 16}
"""Divisors of the limit of pixels: libwebp and Pillow together hold 16 bytes a pixel of a WebP,
libavif and Pillow up to 20 of an AVIF, and Pillow unpacks a compressed BMP (RLE) pixel by pixel."""
_PNG_DEPTH = 24
"""Offset of the byte that holds the bits a channel."""
_BMP_COMPRESSED = (1, 2)
"""Compressions of BMP: runs of 8 and of 4 bits."""


@functools.cache
def decoder_versions() -> str:
    """Versions of the libraries that decode, such as ``simplejpeg 1.9, pillow 12.1``.

    Other versions may round pixels differently.
    """
    versions = ((name, importlib.metadata.version(name)) for name in DECODER_LIBRARIES)
    return ", ".join(f"{name} {'.'.join(version.split('.')[:2])}" for name, version in versions)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Sizes of pictures that are decoded. Pictures of other sizes are bad files."""

    max_pixels: int = 64_000_000
    min_side: int = 8
    """Pixels."""
    max_aspect: float = 50.0
    """Longer side by shorter side."""

    def check(self, width: int, height: int, name: str, divisor: int = 1) -> None:
        """Checks the size of a picture.

        Args:
            width: In pixels.
            height: In pixels.
            name: The picture, for errors.
            divisor: Divides ``max_pixels``.

        Raises:
            BadFileError: The picture is too large, too small or too narrow.
        """
        size = f"{name}: {width}×{height} pixels"
        limit = self.max_pixels // divisor
        if width * height > limit:
            raise BadFileError("too many pixels", f"{size}, more than the limit of {limit}")
        if min(width, height) < self.min_side:
            raise BadFileError("too small", f"{size}, a side is shorter than {self.min_side}")
        if max(width, height) > self.max_aspect * min(width, height):
            raise BadFileError("too narrow", f"{size}, longer than {self.max_aspect:.0f} : 1")


LIMITS = PictureLimits()
CMYK, DEEP, TURNED, ALPHA, PALETTE, FRAMES, ODD_EXIF = CHANGES = (
    "CMYK",
    "16 bit",
    "EXIF rotation",
    "alpha",
    "palette",
    "several frames",
    "unreadable EXIF",
)
"""Changes to pictures that are not plain RGB: converted, rescaled to 8 bits, turned, composed on
white, looked up in the palette, reduced to the first frame, and taken as upright because their EXIF
is unreadable."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB; reduced where a JPEG is large, see `read_picture`."""
    width: int
    """Pixels of the file."""
    height: int
    """Pixels of the file."""
    changes: tuple[str, ...]
    """Which of `CHANGES` were made."""


def decode(data: bytes, name: str, needed: int | None = None) -> NDArray[np.uint8]:
    """Decodes one picture; see `read_picture`.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        BadFileError: The file is damaged, of a foreign format, or of a refused size.
    """
    return read_picture(data, name, needed).pixels


def read_picture(data: bytes, name: str, needed: int | None = None) -> Picture:
    """Decodes one picture, applies its EXIF orientation and composes alpha on white.

    Decoding takes up to 16 bytes of memory a pixel of the file, 1 GB for the largest picture.

    Args:
        data: The file's bytes.
        name: The picture, for errors.
        needed: Pixels that the short side is resized to later; a large JPEG is then decoded at a
            fraction of its size. None: always at full size.

    Raises:
        BadFileError: The file is damaged, of a foreign format, of a refused size, or has too many
            scans.
    """
    check_scans(data, name)
    min_side = 0 if needed is None else 2 * needed
    plain = _decode_plain_jpeg(data, name, min_side)
    if plain is not None:
        return plain
    file_format = image_format(data) or "none"
    try:
        with STRICT as metadata_warnings, _open(data, name, file_format) as image:
            width, height = image.size
            is_compressed_bmp = image.info.get("compression") in _BMP_COMPRESSED
            divisor = _PIXEL_DIVISORS.get("RLE" if is_compressed_bmp else file_format, 1)
            LIMITS.check(width, height, name, divisor)
            if min_side and image.format == "JPEG":
                image.draft(None, (min_side, min_side))
            pixels, changes = _load_pixels(image, data, name)
            if metadata_warnings and ODD_EXIF not in changes:
                changes = (*changes, ODD_EXIF)
            return Picture(pixels, width, height, changes)
    except BadFileError:
        raise
    except MemoryError as error:  # sizes are limited, so the file is not to blame
        raise DeviceError(
            f"{name}: there is not enough memory to decode it.",
            "Lower --workers, or close other programs; the same command resumes.",
        ) from error
    except Exception as error:  # Pillow's plugins raise many kinds; all mean the file is bad
        raise BadFileError("cannot be decoded", f"{name}: cannot be decoded ({error})") from error


def _open(data: bytes, name: str, file_format: str) -> Image.Image:
    if file_format == "TIFF":
        check_tiff(data, name)
    if file_format == "HEIF":
        check_heif(name)
    return Image.open(io.BytesIO(data), formats=[file_format])


def _decode_plain_jpeg(data: bytes, name: str, min_side: int) -> Picture | None:
    """Decodes a JPEG without Pillow; None where it is another format, has EXIF or is unusual."""
    if not data.startswith(b"\xff\xd8\xff") or data.find(b"Exif\0\0", 0, 1 << 16) >= 0:
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        LIMITS.check(width, height, name)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return None
        # libjpeg-turbo can scale by any eighth, but only the powers of two have fast paths.
        divisor = 1
        while divisor < 8 and min_side and min(height, width) >= 2 * divisor * min_side:
            divisor *= 2
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // divisor), min_width=-(-width // divisor)
        )
    except ValueError as error:
        if isinstance(error, BadFileError):
            raise
        return None
    return Picture(pixels, width, height, ())


def _load_pixels(
    image: Image.Image, data: bytes, name: str
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Loads an open picture: (height, width, 3) pixels, and which of `CHANGES` were made."""
    bits = data[_PNG_DEPTH] if image.format == "PNG" else 8
    if image.format == "TIFF":
        orientation, bits, multiple = prepare_tiff(image, name)
        image.load()  # Pillow turns it
        pixels = convert_to_rgb(image, 1)
    else:
        image.load()
        orientation = read_orientation(image)  # a PNG may hold its EXIF after the pixels
        pixels = convert_to_rgb(image, orientation or 1)
        multiple = has_frames(image)
    changed = {
        CMYK: image.mode == "CMYK",
        DEEP: bits > 8,
        TURNED: orientation not in (None, 1),
        ALPHA: has_alpha(image),
        PALETTE: image.mode in ("P", "PA"),
        FRAMES: multiple,
        ODD_EXIF: orientation is None,
    }
    return pixels, tuple(change for change in CHANGES if changed[change])


def needed_side(size: int, crop: float | None) -> int:
    """Pixels that the short side of a picture is resized to before the centre crop."""
    return size if crop is None else math.floor(size / crop)


def fit_square(
    image: NDArray[np.uint8], size: int, crop: float | None, resample: str = "bicubic"
) -> Tensor:
    """Resizes and crops a picture to the model's square input.

    Args:
        image: (height, width, 3) uint8.
        size: Side of the result in pixels.
        crop: Share of the resized short side that the centre crop keeps (timm's ``crop_pct``);
            None squashes the whole picture into the square.
        resample: ``bicubic`` or ``bilinear``.

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
    pixels = F.interpolate(pixels, target, mode=resample, antialias=True)
    top, left = (target[0] - size) // 2, (target[1] - size) // 2
    return pixels[0, :, top : top + size, left : left + size].contiguous()
