"""Where the two stages meet: encoders from the settings, features for stage two.

Only commands import this; ``extract`` is imported when a function runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bank import Dims, FeatureBank, ModalityFeatures
from .config import Settings
from .dataset import Sample, picture_of, single_sample
from .errors import DeviceError, ModelError
from .features import MODALITIES, cache_fields, cache_folder, classes_of, copies_of
from .fingerprint import cache_name, differences
from .store import find_cache


def resolve_encoder(settings: Settings, modality: str, compute: str = "float32") -> Any:
    """The encoder of one modality, resolved to local files but not loaded.

    Args:
        settings: The command's settings.
        modality: ``text`` or ``image``.
        compute: Precision of the forward pass.
    """
    from extract.encoder import Options

    text, image, joint = settings.text, settings.image, settings.joint
    own = text if modality == "text" else image
    options = Options(own.layer, settings.extract.tokens, compute, own.pool_layers)
    if modality == "text":
        from extract.text import resolve_text

        if joint.model is None:
            return resolve_text(text.model, text.weights, text.max_tokens, settings.seed, options)
        return resolve_text(
            joint.model, joint.weights, text.max_tokens, settings.seed, options, joint=True
        )
    from extract.image import resolve_image, resolve_joint_image

    if joint.model is not None:
        return resolve_joint_image(joint.model, joint.weights, settings.seed, options)
    return resolve_image(
        image.model,
        image.weights,
        image.kwargs,
        mean=image.mean,
        std=image.std,
        size=image.size,
        fit=image.fit,
        seed=settings.seed,
        options=options,
    )


def _computes(settings: Settings) -> tuple[str, ...]:
    """Precisions that serve, the device's own first."""
    if settings.extract.compute != "auto":
        return (settings.extract.compute,)
    on_cpu = pick_device(settings.device).type == "cpu"
    own = "float32" if on_cpu else "float16"
    return (own, *(name for name in ("float32", "float16", "bfloat16") if name != own))


def compute_here(settings: Settings) -> str:
    """The precision of a forward pass on this machine."""
    return _computes(settings)[0]


def locate(
    settings: Settings, split: str, modality: str, rows: Sequence[tuple[Sample, int]]
) -> tuple[Any, dict[str, Any]]:
    """The encoder and the fingerprint's fields of one cache.

    Where the precision is ``auto``, a cache of any precision that is there is taken.

    Args:
        settings: The command's settings.
        split: Its split.
        modality: ``text`` or ``image``.
        rows: (sample, variant) in the order of the cache.
    """
    from extract.augment import POLICY

    parent = cache_folder(settings, split, modality)
    own, *others = _computes(settings)
    spec = resolve_encoder(settings, modality, own)
    fields = cache_fields(spec.fields, settings, rows, POLICY)
    for compute in (own, *others):
        wanted = fields | {"compute": compute}
        if (parent / cache_name(spec.name, wanted)).is_dir():
            return spec.computed_in(compute), wanted
    return spec, fields


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


def reader_of(modality: str, spec: Any, seed: int) -> Any:
    """Row → its text or picture, augmented from (seed, guid, variant) alone.

    Args:
        modality: ``text`` or ``image``.
        spec: The encoder; pictures are decoded as large as it needs them.
        seed: Seed of augmentation.
    """
    from extract.augment import augment_image, augment_text, variant_rng
    from extract.decode import decode, needed_side

    needed = needed_side(spec.size, spec.crop) if modality == "image" else None

    def read(row: Any) -> tuple[Any, str]:
        sample, operation = row.sample, ""
        value: Any = (
            sample.text
            if modality == "text"
            else decode(picture_of(sample), sample.image_path.name, needed)
        )
        if row.variant:
            augment: Any = augment_text if modality == "text" else augment_image
            value, operation = augment(value, variant_rng(seed, sample.guid, row.variant, modality))
        return value, operation

    return read


def open_bank(settings: Settings, split: str, samples: Sequence[Sample]) -> FeatureBank:
    """Opens the caches of a split.

    Raises:
        CacheNotFoundError: It was not extracted.
        StaleCacheError: It was extracted from something else; the fields are named.
        DamagedCacheError: A file is not what was sealed.
    """
    from extract.engine import plan_rows

    rows = [(r.sample, r.variant) for r in plan_rows(samples, copies_of(settings, split, samples))]
    features = {}
    for modality in MODALITIES:
        spec, fields = locate(settings, split, modality, rows)
        folder = find_cache(cache_folder(settings, split, modality), spec.name, fields)
        features[modality] = ModalityFeatures.open(folder)
    return _bank(features, samples)


def origin_of(settings: Settings, bank: FeatureBank) -> dict[str, Any]:
    """What identifies the features and the labels that a study is made on."""
    origin = {"text": Path(bank.text.name).name, "image": Path(bank.image.name).name}
    return origin | {"classes": list(classes_of(settings))}


class LiveEncoders:
    """The encoders of some settings; each is loaded when first needed, and kept.

    Args:
        settings: The command's settings.
        trained_on: By modality, the fields that identify the encoder a model was trained on;
            those of modalities that are not there are not checked.
    """

    def __init__(
        self, settings: Settings, trained_on: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._settings = settings
        self._trained_on = trained_on or {}
        self._loaded: dict[str, tuple[Any, Any]] = {}

    def get(self, modality: str) -> tuple[Any, Any]:
        """The encoder of a modality: resolved, and loaded.

        Raises:
            ModelError: It is not to be had, or is not the one that the model was trained on.
        """
        if modality not in self._loaded:
            spec = resolve_encoder(self._settings, modality, compute_here(self._settings))
            check_encoder(modality, spec, self._trained_on.get(modality))
            self._loaded[modality] = spec, spec.load(pick_device(self._settings.device))
        return self._loaded[modality]


def check_encoder(modality: str, spec: Any, trained_on: Mapping[str, Any] | None) -> None:
    """Refuses an encoder other than the one that a model was trained on.

    Raises:
        ModelError: A field that changes features differs; all such are named.
    """
    if trained_on is None:
        return
    # The precision may differ: what it changes is small, and stated.
    here = json.loads(json.dumps(spec.fields)) | {"compute": trained_on.get("compute")}
    changed = [
        line.replace("the cache has", "the model was trained with").replace("wanted is", "here is")
        for line in differences(here, trained_on)
    ]
    if changed:
        raise ModelError(
            f"The {modality} encoder here is not the one that the model was trained on.",
            "Put back the encoder's files, or train the model again.",
            changed,
        )


def live_bank(
    settings: Settings, samples: Sequence[Sample], encoders: LiveEncoders | None = None
) -> FeatureBank:
    """Encodes samples now, without a cache and without variants.

    The features are those of the cache up to the order of additions, which padding and batches
    change: about one part in a thousand, the resolution of float16.

    Args:
        settings: The command's settings.
        samples: What to encode.
        encoders: Those of the settings, where several calls share them.
    """
    encoders = encoders or LiveEncoders(settings)
    return _bank({m: _live_features(settings, samples, m, encoders) for m in MODALITIES}, samples)


def live_pair(
    settings: Settings,
    text: str | None,
    image: Path | None,
    dims: Sequence[Dims],
    positions: int,
    encoders: LiveEncoders | None = None,
) -> FeatureBank:
    """Encodes one post of which a part is missing; the bank masks that part out.

    Args:
        settings: The command's settings.
        text: Its text, or None.
        image: Its picture, or None.
        dims: Features that the models expect.
        positions: Patches that the model expects of a picture.
        encoders: Those of the settings, where several calls share them.
    """
    encoders = encoders or LiveEncoders(settings)
    given = {"text": text, "image": image}
    sample = single_sample(text, image)
    features = {}
    for modality in MODALITIES:
        if given[modality] is not None:
            features[modality] = _live_features(settings, [sample], modality, encoders)
        else:
            vectors = {
                name.removeprefix(f"{modality}_"): size
                for part in dims
                for name, size in part.vectors.items()
                if name.startswith(f"{modality}_")
            }
            features[modality] = ModalityFeatures.absent(
                getattr(dims[0], modality), vectors, positions if modality == "image" else 1
            )
    return FeatureBank(features["text"], features["image"], [sample.guid], [-1], partial=True)


def _live_features(
    settings: Settings, samples: Sequence[Sample], modality: str, encoders: LiveEncoders
) -> ModalityFeatures:
    from extract.engine import encode_rows, plan_rows

    spec, encoder = encoders.get(modality)
    shard = encode_rows(
        plan_rows(samples, {}),
        reader_of(modality, spec, settings.seed),
        encoder,
        pick_device(settings.device),
        settings.extract.batch_size,
    )
    return ModalityFeatures([shard], f"{modality} ({spec.label})")


def _bank(features: dict[str, ModalityFeatures], samples: Sequence[Sample]) -> FeatureBank:
    labels = [-1 if sample.label is None else sample.label for sample in samples]
    guids = [sample.guid for sample in samples]
    return FeatureBank(features["text"], features["image"], guids, labels)
