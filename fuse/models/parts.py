"""Descriptions of the parts of a model, for `summary.summarise`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .projection import Pool, Projection

AXES = {"text": "text_tokens", "image": "patches"}


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One row of a summary."""

    part: str
    """Name of the module inside the model; ``total`` in the last row"""
    computes: str
    """What the part computes, in the symbols of `fusions`"""
    shape: tuple[str | int, ...]
    """Output shape, with names of axes whose length the model does not determine"""
    parameters: int
    """Number of trained parameters"""


def count(module: nn.Module) -> int:
    """Number of trained parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe_projection(name: str, part: Projection) -> ModelPart:
    """The projection of an input."""
    axes = ("batch", AXES[name]) if name in AXES else ("batch",)
    module = f"{name}_projection" if name in AXES else f"beside.{name}"
    steps: list[str] = [] if part.norm == "none" else [part.norm]
    if part.dropout.p > 0:
        shared = ", one mask a row" if part.shared_input_dropout else ""
        steps.append(f"dropout {part.dropout.p:g}{shared}")
    steps.append(f"linear {part.in_dim} → {part.out_dim}")
    return ModelPart(module, " → ".join(steps), (*axes, part.out_dim), count(part))


def describe_pool(modality: str, part: Pool, dim: int) -> ModelPart:
    """The pooling of a model of one modality."""
    return ModelPart(
        "pool", f"{part.kind} of the real {AXES[modality]}", ("batch", dim), count(part)
    )
