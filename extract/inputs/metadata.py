"""What stands in a picture's file beside its pixels: its tags, and how it is turned."""

from __future__ import annotations

import functools
import struct

import numpy as np
from PIL import ExifTags, Image

from mmsa_cache.errors import BadFileError

_MOST_EXIF = 1 << 20
"""Bytes; in a JPEG there can be 64 KiB. A tag of it may make a hundred bytes of memory of each."""
_MOST_VALUES = 1 << 16
"""Of one tag of a TIFF: of each piece of the picture Pillow makes half a kilobyte."""
_MOST_TILE = 1 << 24
"""Pixels of one tile of a TIFF."""
_BYTES = (1, 2, 6, 7)
"""Types of tags whose values take a byte each; they stay bytes."""
_TILE_SIDES = (322, 323)
_WIDTH = {3: "H", 4: "I"}

MAX_SCANS = 100
"""Of a JPEG: each is a pass over the whole picture, however few its bytes. Usual are 1 to 12."""


def check_scans(data: bytes, name: str) -> None:
    """Refuses a JPEG of very many scans. Inside of a scan the bytes of its marker cannot stand.

    Raises:
        BadFileError: It is one.
    """
    if data.startswith(b"\xff\xd8"):
        # As `bytes.count` counts, five times as quick, and without the interpreter's lock.
        values = np.frombuffer(data, np.uint8)
        scans = np.count_nonzero((values[:-1] == 0xFF) & (values[1:] == 0xDA))
        if scans > MAX_SCANS:
            raise BadFileError(
                "too many scans", f"{name}: {scans} scans, more than the limit of {MAX_SCANS}"
            )


def check_tiff(data: bytes, name: str) -> None:
    """Refuses a TIFF of very many pieces or of huge tiles: Pillow would make room for them.

    Raises:
        BadFileError: It has them.
        struct.error: Its tags do not lie in the file.
    """
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (entries,) = struct.unpack_from(f"{order}H", data, start)
    tile = 1
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, place)
        if count > _MOST_VALUES and kind not in _BYTES:
            raise BadFileError(
                "too many pieces",
                f"{name}: its tag {tag} has {count} values, more than the limit of {_MOST_VALUES}",
            )
        if tag in _TILE_SIDES and kind in _WIDTH:
            tile *= struct.unpack_from(f"{order}{_WIDTH[kind]}", data, place + 8)[0]
    if tile > _MOST_TILE:
        raise BadFileError(
            "too many pixels",
            f"{name}: tiles of {tile} pixels, more than the limit of {_MOST_TILE}",
        )


@functools.cache
def _heif_is_registered() -> bool:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener(thumbnails=False)
    return True


def check_heif(name: str) -> None:
    """Lets Pillow read HEIF, where pillow-heif is installed.

    Raises:
        BadFileError: It is not.
    """
    if not _heif_is_registered():
        raise BadFileError(
            "needs pillow-heif", f"{name}: HEIF needs pillow-heif (pip install 'mmsa[pictures]')"
        )


def orientation(image: Image.Image) -> int | None:
    """How a picture is turned, 1 to 8 as EXIF counts; None where its EXIF cannot be read.

    Warnings about EXIF are for the caller to collect.
    """
    found = image.info.get("exif") or b""
    if len(found) > _MOST_EXIF:
        return None
    try:
        Image.Exif().load(found)  # what Pillow had read before, it keeps silent about
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a plugin of Pillow: damaged EXIF raises many kinds
        return None
    return turn if turn in range(1, 9) else 1


def prepare_tiff(image: Image.Image, name: str) -> tuple[int | None, int, bool]:
    """Makes ready to load a TIFF, which then comes turned.

    Returns:
        How it is turned, as `orientation`; bits a channel; whether it has further pages.

    Raises:
        BadFileError: Its numbers are none of pictures.
    """
    if image.mode in ("I", "F"):  # black and white are anywhere
        raise BadFileError(
            "cannot be decoded", f"{name}: cannot be decoded (grey of signed or fractional numbers)"
        )
    pages = bool(getattr(image, "is_animated", False))
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 8)
    # Of a picture of one page, Pillow would read all further tables of tags.
    image.is_animated = True  # type: ignore[attr-defined]
    return orientation(image), max(bits) if isinstance(bits, tuple) else bits, pages


def has_frames(image: Image.Image) -> bool:
    """Whether a picture has more than one frame; a GIF is read on as far as its second."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a plugin of Pillow: damage behind the first frame, which is at hand
        return False
