"""The modalities of a model and of its vectors."""

from __future__ import annotations

from typing import Literal, get_args

Modality = Literal["both", "text", "image"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


def modality_of(name: str) -> str:
    """The modality that the name of a vector starts with."""
    for modality in MODALITIES[1:]:
        if name.startswith(f"{modality}_"):
            return modality
    raise ValueError(f"vector beside {name!r}: its name must start with text_ or image_")
