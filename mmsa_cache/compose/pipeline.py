"""Where the two stages meet: encoders from the settings, features for stage two.

Only commands import this; ``extract`` is imported when a function runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.dataset import Sample, picture_of, single_sample
from mmsa_cache.errors import (
    CacheNotFoundError,
    DeviceError,
    MmsaError,
    ModelError,
    StaleCacheError,
)
from mmsa_cache.features.bank import (
    OWN_PAIR,
    BankChoice,
    Dims,
    EncoderPair,
    FeatureBank,
    ModalityFeatures,
)
from mmsa_cache.store.fingerprint import cache_name, differences
from mmsa_cache.store.schema import DEFAULT_ENCODER
from mmsa_cache.store.store import find_cache

from .samples import MODALITIES, cache_fields, cache_folder, classes_of, copies_of


def resolve_encoder(settings: Settings, modality: str, compute: str = "float32") -> Any:
    """The encoder of one modality, resolved to local files but not loaded.

    Args:
        settings: The command's settings.
        modality: ``text`` or ``image``.
        compute: Precision of the forward pass.
    """
    from extract.encoders.encoder import Options

    text, image, joint = settings.text, settings.image, settings.joint
    own = text if modality == "text" else image
    options = Options(own.layer, settings.extract.tokens, compute, own.pool_layers)
    if modality == "text":
        from extract.encoders.text import resolve_text

        if joint.model is None:
            return resolve_text(text.model, text.weights, text.max_tokens, settings.seed, options)
        return resolve_text(
            joint.model, joint.weights, text.max_tokens, settings.seed, options, joint=True
        )
    from extract.encoders.image import resolve_image, resolve_joint_image

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
    from extract.inputs.augment import POLICY

    parent = cache_folder(settings, split, modality)
    own, *others = _computes(settings)
    spec = resolve_encoder(settings, modality, own)
    fields = cache_fields(spec.fields, settings, rows, POLICY)
    for compute in (own, *others):
        wanted = fields | {"compute": compute}
        if (parent / cache_name(spec.name, wanted)).is_dir():
            return spec.computed_in(compute), wanted
    return spec, fields


def notes_of(settings: Settings, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> list[str]:
    """What a reader of figures made under these settings with these encoders must know."""
    labels = [label for found in labels_of(settings, pairs).values() for label in found.values()]
    notes = [settings.data.note] if settings.data.note else []
    random = [label for label in labels if label.endswith("(random weights)")]
    return notes + list(dict.fromkeys(random))


def labels_of(settings: Settings, pairs: Sequence[EncoderPair]) -> dict[str, dict[str, str]]:
    """What a person calls the encoders: by modality and name."""
    return {
        modality: {
            name: resolve_encoder(settings.with_encoder(modality, name), modality).label
            for name in _names(pairs, modality)
        }
        for modality in MODALITIES
    }


def fields_of(settings: Settings, pairs: Sequence[EncoderPair]) -> dict[str, dict[str, Any]]:
    """By modality the fields that identify its encoder; of several, by name."""
    found: dict[str, dict[str, Any]] = {}
    for modality in MODALITIES:
        fields = {
            name: resolve_encoder(settings.with_encoder(modality, name), modality).fields
            for name in _names(pairs, modality)
        }
        found[modality] = fields if len(fields) > 1 else next(iter(fields.values()))
    return found


def fields_by_name(
    found: Mapping[str, Mapping[str, Any]], pairs: Sequence[EncoderPair]
) -> dict[str, dict[str, Any]]:
    """What `fields_of` gave for these encoders, always by name."""
    return {
        modality: dict.fromkeys(_names(pairs, modality), fields)
        if fields.get("modality") == modality
        else dict(fields)
        for modality, fields in found.items()
    }


def joined_labels(settings: Settings, pairs: Sequence[EncoderPair]) -> dict[str, str]:
    """One line a modality of `labels_of`."""
    return {m: ", ".join(found.values()) for m, found in labels_of(settings, pairs).items()}


def _names(pairs: Sequence[EncoderPair], modality: str) -> list[str]:
    """The different encoders of a modality, in the order in which they are named."""
    return list(dict.fromkeys(pair[MODALITIES.index(modality)] for pair in pairs))


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
    from extract.inputs.augment import augment_image, augment_text, variant_rng
    from extract.inputs.decode import decode, needed_side

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


def open_bank(
    settings: Settings,
    split: str,
    samples: Sequence[Sample],
    pairs: Sequence[EncoderPair] = (OWN_PAIR,),
) -> FeatureBank:
    """Opens the caches of a split.

    Args:
        settings: The command's settings.
        split: Its split.
        samples: All of them.
        pairs: Encoders whose features are wanted; the first ones' bank is returned, and gives the
            others by `FeatureBank.using`.

    Raises:
        SettingsError: There is no encoder of such a name.
        CacheNotFoundError: It was not extracted.
        StaleCacheError: It was extracted from something else; the fields are named.
        DamagedCacheError: A file is not what was sealed.
    """
    rows = _rows(settings, split, samples)

    def open_features(modality: str, name: str) -> ModalityFeatures:
        return ModalityFeatures.open(_find(settings, split, modality, name, rows))

    return _banks(open_features, samples, pairs)


def _rows(settings: Settings, split: str, samples: Sequence[Sample]) -> list[tuple[Sample, int]]:
    """(sample, variant) in the order of a cache."""
    from extract.engine import plan_rows

    return [(r.sample, r.variant) for r in plan_rows(samples, copies_of(settings, split, samples))]


def _find(
    settings: Settings, split: str, modality: str, name: str, rows: Sequence[tuple[Sample, int]]
) -> Path:
    """The finished cache of one encoder; of a named one an error says the command that makes it."""
    parent = cache_folder(settings, split, modality)
    spec, fields = locate(settings.with_encoder(modality, name), split, modality, rows)
    try:
        return find_cache(parent, spec.name, fields)
    except (CacheNotFoundError, StaleCacheError) as error:
        if name == DEFAULT_ENCODER:
            raise
        hint = f"Run mmsa extract --split {split} --encoders {name}."
        own = all(problem.partition(":")[0] not in spec.fields for problem in error.problems)
        if isinstance(error, StaleCacheError) and own:
            raise StaleCacheError(error.message, hint, error.problems) from error
        raise CacheNotFoundError(
            f"The {modality} encoder {name!r} ({spec.label}) has no finished cache of the split "
            f"{split} in {parent}.",
            hint,
        ) from error


def origin_of(
    settings: Settings, bank: FeatureBank, pairs: Sequence[EncoderPair] = (OWN_PAIR,)
) -> dict[str, Any]:
    """What identifies the features and the labels that a study is made on.

    Of a modality the name of the cache, or those by encoder where others than the default are used.
    """
    origin: dict[str, Any] = {}
    for place, modality in enumerate(MODALITIES):
        folders = {
            pair[place]: Path(getattr(bank.using(*pair), modality).name).name for pair in pairs
        }
        own = folders.get(DEFAULT_ENCODER)
        origin[modality] = own if own and len(folders) == 1 else dict(sorted(folders.items()))
    return origin | {"classes": list(classes_of(settings))}


def origins_here(settings: Settings, samples: Sequence[Sample]) -> dict[str, Any]:
    """`origin_of` of every encoder that the settings name and this machine can resolve."""
    rows = _rows(settings, "train", samples)
    origin: dict[str, Any] = {}
    for modality in MODALITIES:
        origin[modality] = {}
        for name in settings.encoder_names(modality):
            own = settings.with_encoder(modality, name)
            try:
                spec, fields = locate(own, "train", modality, rows)
            except MmsaError:
                if name == DEFAULT_ENCODER:
                    raise
                continue  # a study that uses it does not match
            origin[modality][name] = cache_name(spec.name, fields)
    return origin | {"classes": list(classes_of(settings))}


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
        self._loaded: dict[tuple[str, str], tuple[Any, Any]] = {}

    def get(self, modality: str, name: str = DEFAULT_ENCODER) -> tuple[Any, Any]:
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

    return _banks(encode, samples, pairs)


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

    return _banks(encode, [sample], [pair for pair, _ in readers], partial=True)


def _live_features(
    settings: Settings,
    samples: Sequence[Sample],
    modality: str,
    encoders: LiveEncoders,
    name: str,
) -> ModalityFeatures:
    from extract.engine import encode_rows, plan_rows

    spec, encoder = encoders.get(modality, name)
    shard = encode_rows(
        plan_rows(samples, {}),
        reader_of(modality, spec, settings.seed),
        encoder,
        pick_device(settings.device),
        settings.extract.batch_size,
    )
    return ModalityFeatures([shard], f"{modality} ({spec.label})")


def _banks(
    open_features: Callable[[str, str], ModalityFeatures],
    samples: Sequence[Sample],
    pairs: Sequence[EncoderPair],
    *,
    partial: bool = False,
) -> FeatureBank:
    """The bank of the first pair, with the others opened too."""
    labels = [-1 if sample.label is None else sample.label for sample in samples]
    guids = [sample.guid for sample in samples]
    choice = BankChoice(open_features, guids, labels, partial=partial)
    for pair in pairs:
        choice.bank(*pair)
    return choice.bank(*pairs[0])
