"""Resolves the encoders that settings name."""

from __future__ import annotations

from extract.encoders.image import ImageSpec, resolve_image, resolve_joint_image
from extract.encoders.options import Options
from extract.encoders.text import TextSpec, resolve_text
from mmsa_cache.config.settings import Settings
from mmsa_cache.native.device import pick_device


def resolve_encoder(
    settings: Settings, modality: str, compute: str = "float32"
) -> TextSpec | ImageSpec:
    """The encoder of one modality, resolved to local files but not loaded.

    Args:
        settings: The command's settings.
        modality: ``text`` or ``image``.
        compute: Precision of the forward pass.
    """
    if modality == "text":
        return _resolve_text(settings, compute)
    return _resolve_image(settings, compute)


def _resolve_text(settings: Settings, compute: str) -> TextSpec:
    text, joint = settings.text, settings.joint
    options = Options(text.layer, settings.extract.tokens, compute, text.pool_layers)
    if joint.model is None:
        return resolve_text(text.model, text.weights, text.max_tokens, settings.seed, options)
    return resolve_text(
        joint.model, joint.weights, text.max_tokens, settings.seed, options, joint=True
    )


def _resolve_image(settings: Settings, compute: str) -> ImageSpec:
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
    """Precisions that a cache may have, the device's own first."""
    if settings.extract.compute != "auto":
        return (settings.extract.compute,)
    on_cpu = pick_device(settings.device).type == "cpu"
    own = "float32" if on_cpu else "float16"
    return (own, *(name for name in ("float32", "float16", "bfloat16") if name != own))


def compute_here(settings: Settings) -> str:
    """The precision of a forward pass on this machine."""
    return computes_of(settings)[0]
