"""Pictures of somebody hostile: few bytes that would take much memory or time."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from extract.inputs.decode import Picture, read_picture
from extract.inputs.metadata import MAX_SCANS
from mmsa_cache.errors import BadFileError
from tests.support.pictures import png

SIDE = 3000
MOST = 12
"""Bytes a pixel that decoding may take, the 3 of its result included."""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


_PROGRAM = """
import resource, sys
from extract.inputs.decode import read_picture
data = sys.stdin.buffer.read().split(b"END OF FILE")
read_picture(data[0], "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for large in data[1:]:
    read_picture(large, "large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def taken(small: bytes, *large: bytes) -> int:
    """Bytes of memory that decoding large pictures adds, at their peak."""
    command = [sys.executable, "-c", _PROGRAM]
    content = b"END OF FILE".join((small, *large))
    done = subprocess.run(command, input=content, capture_output=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_a_large_picture_takes_little_memory() -> None:
    """Before, greys of 16 bits took 25 bytes a pixel, and alpha 21. Of a TIFF, one compressed strip
    that is turned takes most, 11; a GIF 6; an AVIF 14, and it has half the pixels."""
    turned = Image.Exif()
    turned[0x0112] = 6
    strip = {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30, "exif": turned}
    flat = Image.new("RGB", (SIDE, SIDE), "red")
    pictures = [
        png(64, 8, 4, b"\x12\x34"),
        png(SIDE, 16, 0, b"\x12\x34"),
        png(SIDE, 8, 4, b"\x12\x34"),
        encoded(flat, "TIFF", **strip),
        encoded(flat.convert("P"), "GIF"),
    ]
    assert taken(*pictures) < MOST * SIDE * SIDE


def jpeg_of_scans(count: int, **options: object) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = encoded(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=True, **options)
    last = data.rindex(b"\xff\xda")
    whole = data.count(b"\xff\xda")
    return data[:-2] + data[last:-2] * (count - whole) + data[-2:]


@pytest.mark.parametrize("turn", [None, 3])
def test_a_jpeg_of_very_many_scans_is_refused(turn: int | None) -> None:
    """Of 341 kB and 1,000 scans, one took 44 s. The turned one goes through Pillow."""
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    assert len(read_picture(jpeg_of_scans(MAX_SCANS, exif=exif), "usual").changes) == bool(turn)
    with pytest.raises(BadFileError, match="much: 101 scans, more than the limit of 100") as caught:
        read_picture(jpeg_of_scans(MAX_SCANS + 1, exif=exif), "much")
    assert caught.value.reason == "too many scans"


def test_a_compressed_bmp_has_fewer_pixels() -> None:
    """Its rows end at once, and Pillow would fill them pixel by pixel. Others: test_decode."""
    side = 4000
    palette = b"\0\0\0\0\xff\xff\xff\0"
    body = b"\0\0" * side + b"\0\1"
    for bits, kind in ((8, 1), (4, 2)):
        head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, bits, kind, 0, 0, 0, 2, 0)
        start = 14 + len(head) + len(palette)
        first = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
        with pytest.raises(BadFileError, match="more than the limit of 4000000"):
            read_picture(first + head + palette + body, "bmp")


def test_text_and_profiles_in_a_picture_do_not_explode() -> None:
    bomb = zlib.compress(bytes(70 << 20), 9)
    plain = encoded(Image.new("RGB", (64, 64)), "PNG")
    for name, data in ((b"zTXt", b"a\0\0" + bomb), (b"iCCP", b"a\0\0" + bomb)):
        chunk = struct.pack(">I", len(data)) + name + data
        chunk += struct.pack(">I", zlib.crc32(name + data))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _read_or_refuse(plain[:33] + chunk + plain[33:])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    for kind in ("PNG", "WEBP"):
        options = {"save_all": True, "append_images": frames[1:], "lossless": True}
        found = read_picture(encoded(frames[0], kind, **options), kind)
        assert (found.pixels == (255, 0, 0)).all()
        assert found.changes == ("several frames",)


def _read_or_refuse(data: bytes) -> Picture | None:
    try:
        return read_picture(data, "odd")
    except BadFileError:
        return None


@pytest.mark.parametrize("turn", range(10))
def test_strips_give_what_the_whole_picture_gives(turn: int) -> None:
    pixels = np.random.default_rng(turn).integers(0, 255, (600, 37, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(Image.fromarray(pixels), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        whole = ImageOps.exif_transpose(image)
        white = Image.new("RGBA", whole.size, "white")
        expected = np.asarray(Image.alpha_composite(white, whole).convert("RGB"))
    np.testing.assert_array_equal(read_picture(data, "turned").pixels, expected)


def test_tiffs_of_many_pieces_and_of_huge_tiles_are_refused() -> None:
    """Of 64 MiB of places of strips Pillow would make 8 GB; a tile is made room for whole."""
    places = np.arange(70_000, dtype="<u4").tobytes()
    whole = encoded(Image.new("L", (64, 64)), "TIFF")
    at = whole.index(struct.pack("<HH", 273, 4)) + 4
    many = whole[:at] + struct.pack("<II", 70_000, len(whole)) + whole[at + 8 :] + places
    with pytest.raises(BadFileError, match=r"its tag 273 has 70000 values, more than .* 65536"):
        read_picture(many, "many")
    width, height = (
        struct.pack("<HHII", 322, 4, 1, 1 << 16),
        struct.pack("<HHII", 323, 4, 1, 1 << 16),
    )
    tiles = whole[:8] + struct.pack("<H", 2) + width + height + bytes(4)
    with pytest.raises(BadFileError, match="tiles of 4294967296 pixels"):
        read_picture(tiles, "tiles")
    with pytest.raises(BadFileError, match="cannot be decoded"):
        read_picture(whole[:4] + b"\xff\xff\xff\x7f" + whole[8:], "tags outside the file")


def test_a_gif_of_a_huge_canvas_is_refused() -> None:
    small = encoded(Image.new("P", (8, 8)), "GIF")
    canvas = small[:6] + struct.pack("<HH", 65_000, 65_000) + small[10:]
    with pytest.raises(BadFileError, match=r"exceeds limit|more than the limit"):
        read_picture(canvas, "canvas")


def test_exif_of_a_megabyte_is_not_unpacked() -> None:
    values = bytes(2 << 20)
    tag = struct.pack(">HHII", 0x0112, 5, len(values) // 8, 26)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + tag + bytes(4) + values
    data = encoded(Image.new("RGB", (64, 64)), "PNG", exif=exif)
    assert read_picture(data, "much").changes == ("unreadable EXIF",)
