"""Pictures as small JPEGs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from extract.inputs.decode import decode
from mmsa_cache.data.pairs import MAX_IMAGE_BYTES
from mmsa_cache.data.picture_paths import read_picture


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG."""

    jpeg: bytes
    width: int
    """In pixels."""
    height: int

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


def thumbnail(path: Path, side: int) -> Thumbnail:
    """A thumbnail of a picture file, decoded as in stage one.

    Args:
        path: The file.
        side: Longest side of the result, in pixels.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not regular, or too large.
        BadFileError: It is not a picture that stage one accepts.
    """
    image = Image.fromarray(decode(read_picture(path, MAX_IMAGE_BYTES), path.name, side))
    image.thumbnail((side, side))
    return encode(image)


def encode(image: Image.Image) -> Thumbnail:
    """An RGB image as a JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=82, optimize=True)
    return Thumbnail(data.getvalue(), image.width, image.height)
