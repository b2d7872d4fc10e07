"""How a row is read: its text or picture, augmented from (seed, content, variant) alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.inputs.augment import (
    POLICY,
    augment_image,
    augment_text,
    augment_words,
    variant_rng,
)
from extract.inputs.decode import decode
from extract.plan import Row
from mmsa_cache.data.pairs import read_sample_picture, sample_text
from mmsa_cache.store.keys import variant_key


@dataclass(frozen=True, slots=True)
class TextReader:
    """Row → its text and the augmentation used."""

    seed: int

    def __call__(self, row: Row) -> tuple[str, str]:
        text = sample_text(row.sample)
        if not row.variant:
            return text, ""
        digest = row.sample.text_sha256
        is_default = row.key == variant_key(digest, f"{POLICY}:{self.seed}", row.variant)
        augment = augment_words if is_default else augment_text
        return augment(text, variant_rng(self.seed, digest, row.variant, "text"))


@dataclass(frozen=True, slots=True)
class PictureReader:
    """Row → its picture, (height, width, 3) uint8, and the augmentation used."""

    seed: int
    needed: int
    """Pixels of the short side, see `decode`."""

    def __call__(self, row: Row) -> tuple[NDArray[np.uint8], str]:
        sample = row.sample
        pixels = decode(read_sample_picture(sample), sample.picture_name, self.needed)
        if not row.variant:
            return pixels, ""
        rng = variant_rng(self.seed, sample.image_sha256, row.variant, "image")
        return augment_image(pixels, rng)
