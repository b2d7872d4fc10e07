"""Where the two stages meet: encoders from the settings, features for stage two.

Only commands import this; ``extract`` is imported when a function runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .bank import FeatureBank, ModalityFeatures
from .config import Settings
from .dataset import Sample
from .errors import DeviceError
from .features import MODALITIES, cache_fields, cache_folder, copies_of
from .store import find_cache


def resolve_encoder(settings: Settings, modality: str) -> Any:
    """The encoder of one modality, resolved to local files but not loaded."""
    if modality == "text":
        from extract.text import resolve_text

        text = settings.text
        return resolve_text(text.model, text.weights, text.max_tokens, settings.seed)
    from extract.image import resolve_image

    image = settings.image
    return resolve_image(
        image.model,
        image.weights,
        image.kwargs,
        mean=image.mean,
        std=image.std,
        size=image.size,
        fit=image.fit,
        seed=settings.seed,
    )


def notes_of(settings: Settings) -> list[str]:
    """What a reader of figures made under these settings must know."""
    labels = [resolve_encoder(settings, modality).label for modality in MODALITIES]
    notes = [settings.data.note] if settings.data.note else []
    return notes + [label for label in labels if label.endswith("(random weights)")]


def pick_device(name: str) -> Any:
    """``auto`` → CUDA where there is one.

    Raises:
        DeviceError: CUDA is asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name.startswith("cuda") and not available:
        raise DeviceError("There is no CUDA device.", "Use --device cpu or auto.")
    return torch.device(("cuda" if available else "cpu") if name == "auto" else name)


def build_encoder(spec: Any, modality: str, device: str) -> Any:
    """Loads a resolved encoder."""
    from extract.image import ImageEncoder
    from extract.text import TextEncoder

    return (TextEncoder if modality == "text" else ImageEncoder)(spec, pick_device(device))


def reader_of(modality: str, encoder: Any, seed: int) -> Any:
    """Row → the encoder's input, augmented from (seed, guid, variant) alone."""
    from extract.augment import augment_image, augment_text, variant_rng
    from extract.decode import decode

    def read(row: Any) -> tuple[Any, str]:
        sample, operation = row.sample, ""
        value: Any = (
            sample.text
            if modality == "text"
            else decode(sample.image_path.read_bytes(), sample.image_path.name)
        )
        if row.variant:
            augment: Any = augment_text if modality == "text" else augment_image
            value, operation = augment(value, variant_rng(seed, sample.guid, row.variant, modality))
        return encoder.prepare(value), operation

    return read


def open_bank(settings: Settings, split: str, samples: Sequence[Sample]) -> FeatureBank:
    """Opens the caches of a split.

    Raises:
        CacheNotFoundError: It was not extracted.
        StaleCacheError: It was extracted from something else; the fields are named.
        DamagedCacheError: A file is not what was sealed.
    """
    from extract.augment import POLICY
    from extract.engine import plan_rows

    rows = [(r.sample, r.variant) for r in plan_rows(samples, copies_of(settings, split, samples))]
    features = {}
    for modality in MODALITIES:
        spec = resolve_encoder(settings, modality)
        fields = cache_fields(spec.fields, settings, rows, POLICY)
        folder = find_cache(cache_folder(settings, split, modality), spec.name, fields)
        features[modality] = ModalityFeatures.open(folder)
    return _bank(features, samples)


def live_bank(settings: Settings, samples: Sequence[Sample]) -> FeatureBank:
    """Encodes samples now, without a cache and without variants."""
    from extract.engine import encode_rows, plan_rows

    rows = plan_rows(samples, {})
    features = {}
    for modality in MODALITIES:
        spec = resolve_encoder(settings, modality)
        encoder = build_encoder(spec, modality, settings.device)
        read = reader_of(modality, encoder, settings.seed)
        inputs = [read(row)[0] for row in rows]
        shard = encode_rows(rows, inputs, [""] * len(rows), encoder, settings.extract.batch_size)
        features[modality] = ModalityFeatures([shard], f"{modality} ({spec.label})")
    return _bank(features, samples)


def _bank(features: dict[str, ModalityFeatures], samples: Sequence[Sample]) -> FeatureBank:
    labels = [-1 if sample.label is None else sample.label for sample in samples]
    guids = [sample.guid for sample in samples]
    return FeatureBank(features["text"], features["image"], guids, labels)
