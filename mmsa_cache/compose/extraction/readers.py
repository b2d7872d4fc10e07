"""How rows are read: their texts and pictures, augmented."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from extract.encoders.image import ImageSpec
from extract.inputs.augment import (
    POLICY,
    augment_image,
    augment_text,
    augment_words,
    variant_rng,
)
from extract.inputs.decode import decode, needed_side
from extract.plan import Reader, Row
from mmsa_cache.data.pairs import picture_of, text_of
from mmsa_cache.store.keys import variant_key

from ..session.encoders import EncoderSpec


def reader_of(spec: EncoderSpec, seed: int) -> Reader:
    """Row → its text or picture, augmented from (seed, content, variant) alone.

    Args:
        spec: The encoder; pictures are decoded as large as it needs them.
        seed: Seed of augmentation.
    """

    def read_text(row: Row) -> tuple[str, str]:
        text = text_of(row.sample)
        if not row.variant:
            return text, ""
        digest = row.sample.text_sha256
        usual = row.key == variant_key(digest, f"{POLICY}:{seed}", row.variant)
        change = augment_words if usual else augment_text
        return change(text, variant_rng(seed, digest, row.variant, "text"))

    def read_picture(row: Row) -> tuple[NDArray[np.uint8], str]:
        sample = row.sample
        pixels = decode(picture_of(sample), sample.picture_name, needed)
        if not row.variant:
            return pixels, ""
        return augment_image(pixels, variant_rng(seed, sample.image_sha256, row.variant, "image"))

    if not isinstance(spec, ImageSpec):
        return read_text
    needed = needed_side(spec.size, spec.crop)
    return read_picture
