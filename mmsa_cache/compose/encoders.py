"""The encoders that a command's settings mean: resolved, named, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from extract.encoders.image import ImageEncoder, ImageSpec, resolve_image, resolve_joint_image
from extract.encoders.options import Options
from extract.encoders.text import TextEncoder, TextSpec, resolve_text
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import ModelError
from mmsa_cache.names import MODALITIES, OWN_PAIR, EncoderPair
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.fingerprint import differences

Spec = TextSpec | ImageSpec
Loaded = TextEncoder | ImageEncoder


def resolve_encoder(settings: Settings, modality: str, compute: str = "float32") -> Spec:
    """The encoder of one modality, resolved to local files but not loaded.

    Args:
        settings: The command's settings.
        modality: ``text`` or ``image``.
        compute: Precision of the forward pass.
    """
    if modality == "text":
        return resolve_text_encoder(settings, compute)
    return resolve_image_encoder(settings, compute)


def resolve_text_encoder(settings: Settings, compute: str = "float32") -> TextSpec:
    """See `resolve_encoder`."""
    text, joint = settings.text, settings.joint
    options = Options(text.layer, settings.extract.tokens, compute, text.pool_layers)
    if joint.model is None:
        return resolve_text(text.model, text.weights, text.max_tokens, settings.seed, options)
    return resolve_text(
        joint.model, joint.weights, text.max_tokens, settings.seed, options, joint=True
    )


def resolve_image_encoder(settings: Settings, compute: str = "float32") -> ImageSpec:
    """See `resolve_encoder`."""
    image, joint = settings.image, settings.joint
    options = Options(image.layer, settings.extract.tokens, compute, image.pool_layers)
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


def computes_of(settings: Settings) -> tuple[str, ...]:
    """Precisions that serve, the device's own first."""
    if settings.extract.compute != "auto":
        return (settings.extract.compute,)
    on_cpu = pick_device(settings.device).type == "cpu"
    own = "float32" if on_cpu else "float16"
    return (own, *(name for name in ("float32", "float16", "bfloat16") if name != own))


def compute_here(settings: Settings) -> str:
    """The precision of a forward pass on this machine."""
    return computes_of(settings)[0]


def labels_of(settings: Settings, pairs: Sequence[EncoderPair]) -> dict[str, dict[str, str]]:
    """What a person calls the encoders: by modality and name."""
    return {
        modality: {
            name: resolve_encoder(settings.with_encoder(modality, name), modality).label
            for name in _names(pairs, modality)
        }
        for modality in MODALITIES
    }


def joined_labels(settings: Settings, pairs: Sequence[EncoderPair]) -> dict[str, str]:
    """One line a modality of `labels_of`."""
    return {m: ", ".join(found.values()) for m, found in labels_of(settings, pairs).items()}


def notes_of(settings: Settings, pairs: Sequence[EncoderPair] = (OWN_PAIR,)) -> list[str]:
    """What a reader of figures made under these settings with these encoders must know."""
    labels = [label for found in labels_of(settings, pairs).values() for label in found.values()]
    notes = [settings.data.note] if settings.data.note else []
    random = [label for label in labels if label.endswith("(random weights)")]
    return notes + list(dict.fromkeys(random))


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


def _names(pairs: Sequence[EncoderPair], modality: str) -> list[str]:
    """The different encoders of a modality, in the order in which they are named."""
    return list(dict.fromkeys(pair[MODALITIES.index(modality)] for pair in pairs))


def check_encoder(modality: str, spec: Spec, trained_on: Mapping[str, Any] | None) -> None:
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
