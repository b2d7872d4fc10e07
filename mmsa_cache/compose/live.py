"""Features encoded now, without a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from mmsa_cache.data.dataset import single_sample
from mmsa_cache.data.pairs import Sample, picture_of
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.features.batch import Dims
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, OWN_PAIR, EncoderPair
from mmsa_cache.native.device import pick_device

from .banks import bank_of
from .encoders import Loaded, Spec, check_encoder, compute_here, resolve_encoder


def reader_of(spec: TextSpec | ImageSpec, seed: int) -> Reader:
    """Row → its text or picture, augmented from (seed, guid, variant) alone.

    Args:
        spec: The encoder; pictures are decoded as large as it needs them.
        seed: Seed of augmentation.
    """

    def read_text(row: Row) -> tuple[str, str]:
        text = row.sample.text
        if not row.variant:
            return text, ""
        return augment_text(text, variant_rng(seed, row.sample.guid, row.variant, "text"))

    def read_picture(row: Row) -> tuple[NDArray[np.uint8], str]:
        sample = row.sample
        pixels = decode(picture_of(sample), sample.image_path.name, needed)
        if not row.variant:
            return pixels, ""
        return augment_image(pixels, variant_rng(seed, sample.guid, row.variant, "image"))

    if isinstance(spec, TextSpec):
        return read_text
    needed = needed_side(spec.size, spec.crop)
    return read_picture


def encoded_now(
    settings: Settings,
    device: torch.device,
    samples: Sequence[Sample],
    spec: Spec,
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
    shard = encode_rows(
        plan_rows(samples, {}),
        reader_of(spec, settings.seed),
        encoder,
        device,
        settings.extract.batch_size,
    )
    return ModalityFeatures([shard], f"{modality} ({spec.label})")


class LiveEncoders:
    """The encoders of some settings; each is loaded when first needed, and kept.

    Args:
        settings: The command's settings.
        trained_on: By modality and name, the fields that identify the encoder a model was trained
            on (see `fields_by_name`); those that are not there are not checked.
    """

    def __init__(
        self,
        settings: Settings,
        trained_on: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        self._settings = settings
        self._trained_on = trained_on or {}
        self._loaded: dict[tuple[str, str], tuple[Spec, Loaded]] = {}

    def get(self, modality: str, name: str = DEFAULT_ENCODER) -> tuple[Spec, Loaded]:
        """An encoder of a modality: resolved, and loaded.

        Raises:
            SettingsError: There is no encoder of that name.
            ModelError: It is not to be had, or is not the one that the model was trained on.
        """
        if (modality, name) not in self._loaded:
            own = self._settings.with_encoder(modality, name)
            spec = resolve_encoder(own, modality, compute_here(own))
            check_encoder(modality, spec, self._trained_on.get(modality, {}).get(name))
            self._loaded[modality, name] = spec, spec.load(pick_device(own.device))
        return self._loaded[modality, name]


def live_bank(
    settings: Settings,
    samples: Sequence[Sample],
    encoders: LiveEncoders | None = None,
    pairs: Sequence[EncoderPair] = (OWN_PAIR,),
) -> FeatureBank:
    """Encodes samples now, without a cache and without variants.

    The features are those of the cache up to the order of additions, which padding and batches
    change: about one part in a thousand, the resolution of float16.

    Args:
        settings: The command's settings.
        samples: What to encode.
        encoders: Those of the settings, where several calls share them.
        pairs: See `open_bank`.
    """
    loaded = encoders or LiveEncoders(settings)

    def encode(modality: str, name: str) -> ModalityFeatures:
        return _live_features(settings, samples, modality, loaded, name)

    return bank_of(encode, samples, pairs)


def live_pair(
    settings: Settings,
    text: str | None,
    image: Path | None,
    readers: Sequence[tuple[EncoderPair, Dims]],
    positions: int,
    encoders: LiveEncoders | None = None,
) -> FeatureBank:
    """Encodes one post of which a part is missing; the bank masks that part out.

    Args:
        settings: The command's settings.
        text: Its text, or None.
        image: Its picture, or None.
        readers: Of each model, its encoders and the features that it expects.
        positions: Patches that the model expects of a picture.
        encoders: Those of the settings, where several calls share them.
    """
    loaded = encoders or LiveEncoders(settings)
    given = {"text": text, "image": image}
    sample = single_sample(text, image)

    def encode(modality: str, name: str) -> ModalityFeatures:
        if given[modality] is not None:
            return _live_features(settings, [sample], modality, loaded, name)
        place = MODALITIES.index(modality)
        dims = [found for pair, found in readers if pair[place] == name]
        vectors = {
            pool.removeprefix(f"{modality}_"): size
            for part in dims
            for pool, size in part.vectors.items()
            if pool.startswith(f"{modality}_")
        }
        return ModalityFeatures.absent(
            getattr(dims[0], modality), vectors, positions if modality == "image" else 1
        )

    return bank_of(encode, [sample], [pair for pair, _ in readers], partial=True)


def _live_features(
    settings: Settings,
    samples: Sequence[Sample],
    modality: str,
    encoders: LiveEncoders,
    name: str,
) -> ModalityFeatures:
    spec, encoder = encoders.get(modality, name)
    shard = encode_rows(
        plan_rows(samples, {}),
        reader_of(spec, settings.seed),
        encoder,
        pick_device(settings.device),
        settings.extract.batch_size,
    )
    return ModalityFeatures([shard], f"{modality} ({spec.label})")
