"""Features encoded now, without a cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from extract.encoders.image import ImageSpec
from extract.encoders.protocol import Encoder
from extract.encoders.text import TextSpec
from extract.inputs.augment import augment_image, augment_text, variant_rng
from extract.inputs.decode import decode, needed_side
from extract.plan import Reader, Row, plan_rows
from extract.shards import encode_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample, picture_of, text_of
from mmsa_cache.features.modality import ModalityFeatures


def reader_of(spec: TextSpec | ImageSpec, seed: int) -> Reader:
    """Row → its text or picture, augmented from (seed, content, variant) alone.

    Args:
        spec: The encoder; pictures are decoded as large as it needs them.
        seed: Seed of augmentation.
    """

    def read_text(row: Row) -> tuple[str, str]:
        text = text_of(row.sample)
        if not row.variant:
            return text, ""
        return augment_text(text, variant_rng(seed, row.sample.text_sha256, row.variant, "text"))

    def read_picture(row: Row) -> tuple[NDArray[np.uint8], str]:
        sample = row.sample
        pixels = decode(picture_of(sample), sample.picture_name, needed)
        if not row.variant:
            return pixels, ""
        return augment_image(pixels, variant_rng(seed, sample.image_sha256, row.variant, "image"))

    if isinstance(spec, TextSpec):
        return read_text
    needed = needed_side(spec.size, spec.crop)
    return read_picture


def encoded_now(
    settings: Settings,
    device: torch.device,
    samples: Sequence[Sample],
    spec: TextSpec | ImageSpec,
    encoder: Encoder,
) -> ModalityFeatures:
    """Features of samples, encoded now, without variants.

    Args:
        settings: The command's settings.
        device: Where the encoder runs.
        samples: What to encode.
        spec: The encoder.
        encoder: The same, loaded.
    """
    modality = spec.identity.modality
    rows = plan_rows(samples, {}, "none", modality)
    reader, batch_size = reader_of(spec, settings.seed), settings.extract.batch_size
    shard = encode_rows(rows, reader, encoder, device, batch_size)
    return ModalityFeatures([shard], f"{modality} ({spec.label})", table=rows.wanted.table)
