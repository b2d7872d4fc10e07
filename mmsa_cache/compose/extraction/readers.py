"""Readers of the rows of an encoder."""

from __future__ import annotations

from extract.encoders.image import ImageSpec
from extract.inputs.decode import needed_side
from extract.plan import Reader
from extract.reading.readers import PictureReader, TextReader

from ..session.encoders import EncoderSpec


def reader_of(spec: EncoderSpec, seed: int) -> Reader:
    """A reader that maps a row to its augmented text or picture; can be pickled.

    Args:
        spec: The encoder; pictures are decoded as large as it needs them.
        seed: Seed of augmentation, which depends on seed, content and variant alone.
    """
    if not isinstance(spec, ImageSpec):
        return TextReader(seed)
    return PictureReader(seed, needed_side(spec.size, spec.crop))
