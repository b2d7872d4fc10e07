"""Damaged and made-up pictures of every format, and what stands in their EXIF."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extract.inputs import decode
from mmsa_cache.errors import BadFileError
from tests.support.data_folders import noise, saved
from tests.support.fuzzing import EXAMPLES, Random, mutated, series
from tests.support.tally import Tally

FRAMES: dict[str, Any] = {"save_all": True, "append_images": [noise(1), noise(2)]}
GREY = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)


def turned(value: int = 6) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = value
    tags[0x010F] = "maker"
    return tags


SOURCES: dict[str, list[bytes]] = {
    "JPEG": [
        saved(noise(0)),
        saved(noise(0), progressive=True),
        saved(noise(0).convert("CMYK")),
        saved(noise(0), exif=turned()),
        saved(noise(0).convert("L")),
    ],
    "PNG": [
        saved(noise(0), "PNG"),
        saved(GREY, "PNG", exif=turned()),
        saved(noise(0).convert("P"), "PNG"),
        saved(noise(0).convert("RGBA"), "PNG", exif=turned(3)),
        saved(noise(0), "PNG", **FRAMES),
    ],
    "GIF": [
        saved(noise(0).convert("P"), "GIF"),
        saved(noise(0), "GIF", **FRAMES),
        saved(noise(0).convert("P"), "GIF", transparency=3, comment=b"x" * 300),
    ],
    "TIFF": [
        saved(noise(0), "TIFF"),
        saved(noise(0), "TIFF", compression="tiff_lzw", exif=turned()),
        saved(noise(0), "TIFF", compression="jpeg"),
        saved(GREY, "TIFF", compression="tiff_adobe_deflate"),
        saved(noise(0).convert("1"), "TIFF", compression="group4"),
        saved(noise(0), "TIFF", compression="packbits", **FRAMES),
        saved(noise(0).convert("CMYK"), "TIFF", big_tiff=True),
    ],
    "WEBP": [
        saved(noise(0), "WEBP"),
        saved(noise(0), "WEBP", lossless=True, exif=turned()),
        saved(noise(0).convert("RGBA"), "WEBP"),
        saved(noise(0), "WEBP", **FRAMES),
    ],
    "AVIF": [
        saved(noise(0), "AVIF", speed=10),
        saved(noise(0).convert("RGBA"), "AVIF", speed=10, exif=turned()),
        saved(noise(0), "AVIF", speed=10, **FRAMES),
    ],
    "BMP": [
        saved(noise(0), "BMP"),
        saved(noise(0).convert("P"), "BMP"),
        saved(noise(0).convert("1"), "BMP"),
    ],
}


MOST = 1 << 30
"""Bytes for the largest picture, see `decode.read_picture`; one of a WebP is Pillow's own limit."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest picture has 4 million pixels, so that each takes milliseconds."""
    monkeypatch.setattr(decode, "LIMITS", decode.PictureLimits(max_pixels=4_000_000))


def look(data: bytes) -> None:
    found = decode.read_picture(data, "odd", 64 if len(data) % 2 else None)
    height, width, channels = found.pixels.shape
    assert channels == 3
    assert found.pixels.dtype == np.uint8
    assert min(height, width) > 0
    assert set(found.changes) <= {*decode.CHANGES}


@EXAMPLES
@pytest.mark.parametrize("kind", SOURCES)
def test_pictures(small: None, kind: str, examples: int, tally: Tally) -> None:
    held = series(
        examples,
        lambda chosen: mutated(chosen, SOURCES[kind]),
        look,
        own=(BadFileError,),
        growth=MOST,
    )
    tally(f"fuzzed {kind} pictures", examples, held)


def exif_block(chosen: Random) -> bytes:
    """Directories of tags of every type, with counts and places of every size."""
    order = chosen.choice("<>")
    entries = b""
    count = chosen.choice((0, 1, 2, 5, 40))
    for _ in range(count):
        tag = chosen.choice((0x0112, 0x0112, 0x8769, 0x8825, 0xA005, 0x014A, 0x927C, 273, 1, 65535))
        kind, many = (
            chosen.randrange(20),
            chosen.choice((0, 1, 2, 9, 1 << 16, 1 << 31, (1 << 32) - 1)),
        )
        value = chosen.choice((0, 1, 6, 8, 9, 26, 255, 1 << 16, (1 << 32) - 1, 6 << 16))
        entries += struct.pack(f"{order}HHII", tag, kind, many, value)
    said = chosen.choice((count, count, count + 1, 65535))
    magic, first = chosen.choice((42, 42, 42, 43, 0)), chosen.choice((8, 8, 8, 0, 4, 1 << 31))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", magic, first)
    tail = struct.pack(f"{order}I", chosen.choice((0, 8, 9, 1 << 30)))
    block = b"Exif\0\0" + head + struct.pack(f"{order}H", said) + entries + tail
    return mutated(chosen, [block]) if chosen.random() < 0.3 else block


def with_exif(chosen: Random) -> bytes:
    """A good picture with such a block."""
    block, kind = exif_block(chosen), chosen.choice(("JPEG", "JPEG", "PNG", "WEBP"))
    if kind == "JPEG":
        plain = SOURCES["JPEG"][0]
        size = chosen.choice((len(block) + 2, len(block) + 2, 2, 65535)) & 0xFFFF
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", size) + block[:65000] + plain[2:]
    file = io.BytesIO()
    noise(0).save(file, kind, exif=block)
    return file.getvalue()


@EXAMPLES
def test_exif(small: None, examples: int, tally: Tally) -> None:
    tally(
        "fuzzed EXIF", examples, series(examples, with_exif, look, own=(BadFileError,), growth=MOST)
    )
