"""Picture bytes → (height, width, 3) uint8 RGB → square model input.

Plain JPEGs go through libjpeg-turbo (simplejpeg), everything else through Pillow. A JPEG that is
far larger than the model's input is decoded at 1/2, 1/4 or 1/8 of its size, never below twice the
need, so that the resize after it still does the smoothing (what Pillow's ``thumbnail`` does by
default); photographs of many megapixels then cost little more than small ones. The resize is
torch's antialiased bicubic on uint8.
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

from .metadata import check_heif, check_scans, check_tiff, has_frames, orientation, prepare_tiff
from .strict import STRICT

DECODER = "simplejpeg+pillow, jpeg reduced to twice the need"
DECODER_LIBRARIES = ("simplejpeg", "pillow")
RESIZE = "torch-{}-antialias-uint8"
"""``bicubic`` or ``bilinear``."""
_FEWER_PIXELS = {"WEBP": 2, "AVIF": 2, "RLE": 16}
"""Part of the pixels that are taken: libwebp and Pillow hold 16 bytes a pixel of a WebP in all,
libavif and Pillow up to 20 of an AVIF, and Pillow unpacks a compressed BMP pixel by pixel."""


@functools.cache
def decoder_versions() -> str:
    """The libraries that decode, as ``simplejpeg 1.9, pillow 12.1``: others may round pixels."""
    found = ((name, importlib.metadata.version(name)) for name in DECODER_LIBRARIES)
    return ", ".join(f"{name} {'.'.join(version.split('.')[:2])}" for name, version in found)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Sizes of pictures that are decoded; all others are bad files."""

    max_pixels: int = 64_000_000
    min_side: int = 8
    """Pixels."""
    max_aspect: float = 50.0
    """Longer side by shorter side."""

    def check(self, width: int, height: int, name: str, part: int = 1) -> None:
        """Refuses a picture by its size in pixels.

        Args:
            width: In pixels.
            height: In pixels.
            name: What to call the picture in errors.
            part: Part of ``max_pixels`` that is taken.

        Raises:
            BadFileError: It is too large, too small or too narrow.
        """
        size = f"{name}: {width}×{height} pixels"
        limit = self.max_pixels // part
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
"""What is done to pictures that are no plain RGB: converted, rescaled to 8 bits, turned, composed
on white, looked up, reduced to the first frame, and taken as upright where their EXIF does not
say it soundly."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture and what it was."""

    pixels: NDArray[np.uint8]
    """(height, width, 3) RGB; of a large JPEG a reduction, see `decode`."""
    width: int
    """Of the file, in pixels."""
    height: int
    changes: tuple[str, ...]
    """Those of `CHANGES` that were made."""


def decode(data: bytes, name: str, needed: int | None = None) -> NDArray[np.uint8]:
    """Decodes one picture; see `read_picture`.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        BadFileError: Truncated, foreign, too small, too large or too narrow.
    """
    return read_picture(data, name, needed).pixels


def read_picture(data: bytes, name: str, needed: int | None = None) -> Picture:
    """Decodes one picture; EXIF rotation applied, alpha composed on white.

    Args:
        data: The file's bytes.
        name: What to call the picture in errors.
        needed: Pixels that the short side is resized to later; a JPEG is then decoded no larger
            than needed. None: always at full size.

    Decoding takes up to 16 bytes of memory a pixel of the file, 1 GB for the largest picture.

    Raises:
        BadFileError: Truncated, foreign, too small, too large, too narrow, or of too many scans.
    """
    check_scans(data, name)
    least = 0 if needed is None else 2 * needed
    fast = _decode_plain_jpeg(data, name, least)
    if fast is not None:
        return fast
    kind = image_format(data) or "none"
    try:
        with STRICT as odd, _opened(data, name, kind) as image:
            width, height = image.size
            packed = "RLE" if image.info.get("compression") in _BMP_PACKED else kind
            LIMITS.check(width, height, name, _FEWER_PIXELS.get(packed, 1))
            if least and image.format == "JPEG":
                image.draft(None, (least, least))
            pixels, changes = _loaded(image, data, name)
            if odd and ODD_EXIF not in changes:
                changes = (*changes, ODD_EXIF)
            return Picture(pixels, width, height, changes)
    except BadFileError:
        raise
    except MemoryError as error:  # sizes are limited: nothing is wrong with the file
        raise DeviceError(
            f"{name}: there is not enough memory to decode it.",
            "Lower --workers, or close other programs; the same command resumes.",
        ) from error
    except Exception as error:  # Pillow's plugins raise many kinds; all mean the file is bad
        raise BadFileError("cannot be decoded", f"{name}: cannot be decoded ({error})") from error


def _opened(data: bytes, name: str, kind: str) -> Image.Image:
    if kind == "TIFF":
        check_tiff(data, name)
    if kind == "HEIF":
        check_heif(name)
    return Image.open(io.BytesIO(data), formats=[kind])


def _decode_plain_jpeg(data: bytes, name: str, least: int) -> Picture | None:
    """None where the picture needs Pillow: other format, CMYK, EXIF, or anything odd."""
    if not data.startswith(b"\xff\xd8\xff") or data.find(b"Exif\0\0", 0, 1 << 16) >= 0:
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
        LIMITS.check(width, height, name)
        if colorspace not in ("YCbCr", "RGB", "Gray"):
            return None
        # libjpeg-turbo would take any eighth; only the halvings have fast paths.
        part = next((p for p in (8, 4, 2) if least and min(height, width) >= p * least), 1)
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, "RGB", min_height=-(-height // part), min_width=-(-width // part)
        )
    except ValueError as error:
        if isinstance(error, BadFileError):
            raise
        return None
    return Picture(pixels, width, height, ())


def _loaded(
    image: Image.Image, data: bytes, name: str
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(height, width, 3) pixels, and what of `CHANGES` was made of them."""
    bits = data[_PNG_DEPTH] if image.format == "PNG" else 8
    if image.format == "TIFF":
        turn, bits, frames = prepare_tiff(image, name)
        image.load()  # Pillow turns it
        pixels = convert_to_rgb(image, 1)
    else:
        image.load()
        turn = orientation(image)  # a PNG may hold its EXIF behind the pixels
        pixels = convert_to_rgb(image, turn or 1)
        frames = has_frames(image)
    made = {
        CMYK: image.mode == "CMYK",
        DEEP: bits > 8,
        TURNED: turn not in (None, 1),
        ALPHA: _has_alpha(image),
        PALETTE: image.mode in ("P", "PA"),
        FRAMES: frames,
        ODD_EXIF: turn is None,
    }
    return pixels, tuple(change for change in CHANGES if made[change])


_PNG_DEPTH = 24
"""Place of the byte that holds the bits a channel."""
_BMP_PACKED = (1, 2)
"""Compressions of BMP: runs of 8 and of 4 bits."""


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("PA", "LA", "RGBA", "RGBa") or "transparency" in image.info


def convert_to_rgb(image: Image.Image, turn: int) -> NDArray[np.uint8]:
    """(height, width, 3), turned as EXIF counts. Converted strip by strip: a conversion of Pillow
    makes a picture of 4 bytes a pixel, and some take several."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        strip = image.crop((0, top, width, min(top + _STRIP, height)))
        pixels[top : top + _STRIP] = _strip_to_rgb(strip)
    turns = _TURNS.get(turn)
    if turns is None:
        return pixels
    transposed, reversed_axes = turns
    turned = pixels.transpose(1, 0, 2) if transposed else pixels
    return np.ascontiguousarray(np.flip(turned, reversed_axes))


_STRIP = 256
"""Rows."""
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}
"""EXIF's orientations: whether rows and columns change places, and the axes reversed after it."""


def _strip_to_rgb(strip: Image.Image) -> NDArray[np.uint8]:
    if strip.mode.startswith("I"):  # 16 bits a pixel: a plain convert would clip it to white
        grey = np.clip((np.asarray(strip, np.float64) / 257.0).round(), 0, 255).astype(np.uint8)
        return grey[:, :, None]
    if strip.mode == "P" or _has_alpha(strip):
        layer = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.asarray(strip.convert("RGB"))


def needed_side(size: int, crop: float | None) -> int:
    """Pixels that the short side of a picture is resized to before the crop."""
    return size if crop is None else math.floor(size / crop)


def fit_square(
    image: NDArray[np.uint8], size: int, crop: float | None, resample: str = "bicubic"
) -> Tensor:
    """Brings a picture to the model's square input.

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
