"""Tags and orientation of picture files."""

from __future__ import annotations

import functools
import struct

import numpy as np
from PIL import ExifTags, Image

from mmsa_cache.errors import BadFileError

_MAX_EXIF = 1 << 20
"""Bytes of EXIF; a JPEG holds up to 64 KiB. One byte may take a hundred bytes of memory."""
_MAX_VALUES = 1 << 16
"""Values of one tag of a TIFF. Pillow takes half a kilobyte for each piece of a picture."""
_MAX_TILE = 1 << 24
"""Pixels of one tile of a TIFF."""
_BYTE_TYPES = (1, 2, 6, 7)
"""Types of tags with values of one byte, which Pillow keeps as bytes."""
_TILE_SIDE_TAGS = (322, 323)
_FORMATS = {3: "H", 4: "I"}
"""Formats of `struct` by types of tags."""

MAX_SCANS = 100
"""Scans of a JPEG. Each is a pass over the whole picture, however few its bytes; 1 to 12 are
usual."""


def check_scans(data: bytes, name: str) -> None:
    """Refuses a JPEG of very many scans. The bytes of a scan's marker cannot occur inside a scan.

    Raises:
        BadFileError: There are more than `MAX_SCANS`.
    """
    if data.startswith(b"\xff\xd8"):
        # Counts as `bytes.count` does, five times as fast and without the interpreter's lock.
        values = np.frombuffer(data, np.uint8)
        scans = np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0xDA))
        if scans > MAX_SCANS:
            raise BadFileError(
                "too many scans", f"{name}: {scans} scans, more than the limit of {MAX_SCANS}"
            )


def check_tiff(data: bytes, name: str) -> None:
    """Refuses a TIFF of very many pieces or of huge tiles, which Pillow would allocate.

    Raises:
        BadFileError: It has them.
        struct.error: Its tags lie outside the file.
    """
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, start)
    tile_pixels = 1
    for offset in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, offset)
        if count > _MAX_VALUES and kind not in _BYTE_TYPES:
            raise BadFileError(
                "too many pieces",
                f"{name}: its tag {tag} has {count} values, more than the limit of {_MAX_VALUES}",
            )
        if tag in _TILE_SIDE_TAGS and kind in _FORMATS:
            tile_pixels *= struct.unpack_from(f"{order}{_FORMATS[kind]}", data, offset + 8)[0]
    if tile_pixels > _MAX_TILE:
        raise BadFileError(
            "too many pixels",
            f"{name}: tiles of {tile_pixels} pixels, more than the limit of {_MAX_TILE}",
        )


@functools.cache
def _register_heif() -> bool:
    """Lets Pillow read HEIF; False where pillow-heif is not installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def check_heif(name: str) -> None:
    """Lets Pillow read HEIF.

    Raises:
        BadFileError: pillow-heif is not installed.
    """
    if not _register_heif():
        raise BadFileError(
            "needs pillow-heif", f"{name}: HEIF needs pillow-heif (pip install 'mmsa[pictures]')"
        )


def read_orientation(image: Image.Image) -> int | None:
    """Orientation of a picture by its EXIF, 1 to 8; None where the EXIF cannot be read.

    The caller collects warnings about EXIF.
    """
    exif = image.info.get("exif") or b""
    if len(exif) > _MAX_EXIF:
        return None
    try:
        Image.Exif().load(exif)  # Pillow does not repeat warnings about EXIF that it has read
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's plugins raise many kinds for damaged EXIF
        return None
    return orientation if orientation in range(1, 9) else 1


def prepare_tiff(image: Image.Image, name: str) -> tuple[int | None, int, bool]:
    """Prepares a TIFF for loading. Pillow then turns it by its orientation.

    Returns:
        Its orientation, see `read_orientation`; bits a channel; whether it has further pages.

    Raises:
        BadFileError: Its pixels are signed or fractional numbers.
    """
    if image.mode in ("I", "F"):  # the values of black and white are unknown
        raise BadFileError(
            "cannot be decoded", f"{name}: cannot be decoded (grey of signed or fractional numbers)"
        )
    has_pages = bool(getattr(image, "is_animated", False))
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 8)
    # Pillow would read all further tables of tags of a picture of one page.
    image.is_animated = True  # type: ignore[attr-defined]
    return read_orientation(image), max(bits) if isinstance(bits, tuple) else bits, has_pages


def has_frames(image: Image.Image) -> bool:
    """Whether a picture has more than one frame. A GIF is read up to its second."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow's plugins raise many kinds for damage after the first frame
        return False
