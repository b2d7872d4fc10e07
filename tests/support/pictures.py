"""Pictures as bytes."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def jpeg(shade: int = 90, size: tuple[int, int] = (32, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (shade, 20, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def png(side: int, bits: int, colour: int, pixel: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(b"\0" + pixel * side) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
