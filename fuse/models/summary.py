"""What a built model consists of, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .head import Head, LateHead
from .kernel import KernelClassifier
from .model import MultimodalClassifier
from .noise import Dropout
from .projection import Pool, Projection

AXES = {"text": "text_tokens", "image": "patches"}


@dataclass(frozen=True, slots=True)
class Part:
    """One row of a summary."""

    part: str
    """Name of the module inside the model; ``total`` in the last row"""
    computes: str
    """What the part computes, in the symbols of `fusions`"""
    shape: tuple[str | int, ...]
    """Output shape: axis names where the model does not set the length"""
    parameters: int
    """Number of trained figures"""


def summarise(model: MultimodalClassifier | KernelClassifier) -> list[Part]:
    """The parts of a model in the order of their work, and the total.

    The numbers of parameters add up to the last row's. Nothing is run, so a model on the ``meta``
    device will do.
    """
    if isinstance(model, KernelClassifier):
        return _kernel(model)
    parts = []
    for name, projection in model.projections.items():
        axes = ("batch", AXES[name]) if name in AXES else ("batch",)
        module = f"{name}_projection" if name in AXES else f"beside.{name}"
        shape = (*axes, projection.out_dim)
        parts.append(Part(module, _projection(projection), shape, _count(projection)))
    if model.fusion is not None:
        shape = ("batch", model.fusion.out_dim)
        parts.append(Part("fusion", model.fusion.computes, shape, _count(model.fusion)))
    elif model.pool is not None:
        ((name, projection),) = ((n, p) for n, p in model.projections.items() if n in AXES)
        shape = ("batch", projection.out_dim)
        parts.append(Part("pool", _pool(model.pool, AXES[name]), shape, _count(model.pool)))
    parts += _head(model.head)
    logits = parts[-1].shape
    return [*parts, Part("total", "logits", logits, sum(part.parameters for part in parts))]


def _kernel(model: KernelClassifier) -> list[Part]:
    linear = model.weight
    parts = [
        Part(
            "kernel",
            f"exp(−½ · mean of |x − y|² / dim) of {', '.join(model.inputs)}, whitened",
            ("batch", linear.in_features),
            0,
        ),
        Part(
            "weight",
            f"linear {linear.in_features} → {linear.out_features}",
            ("batch", linear.out_features),
            _count(linear),
        ),
    ]
    return [*parts, Part("total", "logits", parts[-1].shape, _count(linear))]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _projection(projection: Projection) -> str:
    steps: list[str] = [] if projection.norm == "none" else [projection.norm]
    if projection.dropout.p > 0:
        shared = ", one mask a row" if projection.shared_input_dropout else ""
        steps.append(f"dropout {projection.dropout.p:g}{shared}")
    return " → ".join([*steps, f"linear {projection.in_dim} → {projection.out_dim}"])


def _pool(pool: Pool, axis: str) -> str:
    return f"{pool.kind} of the real {axis}"


def _head(head: Head | LateHead) -> list[Part]:
    if isinstance(head, Head):
        return [_classifier("head", head)]
    parts = [_classifier("head.text", head.text), _classifier("head.image", head.image)]
    average = "log of the average class probabilities of the modalities present"
    return [*parts, Part("head", average, parts[0].shape, 0)]


def _classifier(name: str, head: Head) -> Part:
    linear = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
    outputs = [layer.out_features for layer in linear]
    sizes = " → ".join(str(size) for size in [linear[0].in_features, *outputs])
    between = ""
    if len(linear) > 1:
        p = next(layer.p for layer in head.layers if isinstance(layer, Dropout))
        between = f", batch norm, leaky ReLU, dropout {p:g} between"
    return Part(name, f"linear {sizes}{between}", ("batch", outputs[-1]), _count(head))
