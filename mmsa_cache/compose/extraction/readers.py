"""Which reader an encoder's rows have."""

from __future__ import annotations

from extract.encoders.image import ImageSpec
from extract.inputs.decode import needed_side
from extract.plan import Reader
from extract.reading.readers import PictureReader, TextReader

from ..session.encoders import EncoderSpec


def reader_of(spec: EncoderSpec, seed: int) -> Reader:
    """Row → its text or picture, augmented from (seed, content, variant) alone; can be pickled.

    Args:
        spec: The encoder; pictures are decoded as large as it needs them.
        seed: Seed of augmentation.
    """
    if not isinstance(spec, ImageSpec):
        return TextReader(seed)
    return PictureReader(seed, needed_side(spec.size, spec.crop))
