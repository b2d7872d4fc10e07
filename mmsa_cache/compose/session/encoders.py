"""Resolves the encoders that settings name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from extract.encoders.image import ImageSpec, resolve_image, resolve_joint_image
from extract.encoders.lexicon import resolve_lexicon
from extract.encoders.ngrams import resolve_ngrams
from extract.encoders.numbers import NumbersSpec
from extract.encoders.options import Options
from extract.encoders.text import TextSpec, resolve_text
from extract.encoders.weights import offline
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import ModelError
from mmsa_cache.names import NGRAMS, VADER
from mmsa_cache.native.device import device_kind
from mmsa_cache.store.identity import EncoderIdentity

from .path_policy import ENCODER_PATHS, PathPolicy

EncoderSpec = TextSpec | ImageSpec | NumbersSpec
"""An encoder, resolved to local files but not loaded."""
_RULE_ENCODERS = {VADER: resolve_lexicon, NGRAMS: resolve_ngrams}


def resolve_encoder(
    settings: Settings,
    modality: str,
    compute: str = "float32",
    path_policy: PathPolicy | None = None,
    online: bool = False,
) -> EncoderSpec:
    """The encoder of one modality, resolved to local files but not loaded.

    Args:
        settings: The command's settings.
        modality: ``text`` or ``image``.
        compute: Precision of the forward pass.
        path_policy: Which paths of the settings may be used; None: all.
        online: Whether missing files may be downloaded by their hub name.

    Raises:
        ModelError: The encoder is not found, or may not be used.
    """
    if path_policy is not None:
        for path, what in _encoder_paths(settings, modality):
            path_policy.require(path, what)
    resolve = _resolve_text if modality == "text" else _resolve_image
    with contextlib.nullcontext() if online else offline():
        return resolve(settings, compute)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that run encoders."""
    return {name: version(name) for name in ("torch", "transformers", "timm")}


def _encoder_paths(settings: Settings, modality: str) -> Iterator[tuple[Path, str]]:
    """The folder or file of an encoder, if it has one, with its name for messages."""
    for section, key in ENCODER_PATHS:
        name = getattr(getattr(settings, section), key)
        is_used = section == ("joint" if settings.joint.model is not None else modality)
        if is_used and os.path.lexists(name):
            yield Path(name), f"the encoder [{section}] {key}"


def resolve_local_encoder(
    settings: Settings, modality: str, policy: PathPolicy
) -> EncoderSpec | None:
    """The encoder of one modality if its files are on this machine, else None.

    Args:
        settings: The command's settings.
        modality: ``text`` or ``image``.
        policy: Which paths of the settings may be used.
    """
    if not all(
        policy.allows_with_note(path, what) for path, what in _encoder_paths(settings, modality)
    ):
        return None
    try:
        return resolve_encoder(settings, modality)
    except ModelError:
        return None


def refuse_imported(encoder: EncoderIdentity | None) -> None:
    """Raises an error for an encoder whose features were imported: it cannot encode here.

    Raises:
        ModelError: The features were imported.
    """
    if encoder is not None and encoder.imported:
        raise ModelError(
            f"The {encoder.modality} features of {encoder.name} were imported: "
            "there is no encoder here to compute others with.",
            "Import the features of all rows with mmsa cache import, or train a model on features "
            "of mmsa extract.",
        )


def _resolve_text(settings: Settings, compute: str) -> TextSpec | NumbersSpec:
    text, joint = settings.text, settings.joint
    model, weights = text.model, text.weights
    if model in _RULE_ENCODERS and joint.model is None:
        return _RULE_ENCODERS[model](_options(settings, text.layer, (), compute))
    if joint.model is not None:
        model, weights = joint.model, joint.weights
    layers = _numbered(text.pool_layers)
    return resolve_text(
        model,
        weights,
        text.max_tokens,
        settings.seed,
        _options(settings, text.layer, layers or (), compute),
        joint=joint.model is not None,
        quarters=layers is None,
    )


def _resolve_image(settings: Settings, compute: str) -> ImageSpec:
    image, joint = settings.image, settings.joint
    layers = _numbered(image.pool_layers)
    options = _options(settings, image.layer, layers or (), compute)
    quarters = layers is None
    if joint.model is not None:
        return resolve_joint_image(
            joint.model, joint.weights, settings.seed, options, quarters=quarters
        )
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
        quarters=quarters,
    )


def _numbered(pool_layers: tuple[int, ...] | str) -> tuple[int, ...] | None:
    """Pool layers that are given by number; None for the quarters of the model's depth."""
    return pool_layers if isinstance(pool_layers, tuple) else None


def _options(
    settings: Settings, layer: str | int, pool_layers: tuple[int, ...], compute: str
) -> Options:
    device = device_kind(settings.device)
    return Options(layer, settings.extract.tokens, compute, pool_layers, device)


def allowed_precisions(settings: Settings) -> tuple[str, ...]:
    """Precisions of features that may be used, the default of the device first."""
    if settings.extract.compute != "auto":
        return (settings.extract.compute,)
    first = "float32" if device_kind(settings.device) == "cpu" else "float16"
    return (first, *(name for name in ("float32", "float16", "bfloat16", "half") if name != first))


def default_precision(settings: Settings) -> str:
    """The precision of forward passes on this machine."""
    return allowed_precisions(settings)[0]
