"""Names that every layer knows: splits, modalities, encoders."""

from __future__ import annotations

from collections.abc import Iterable

SPLITS = ("train", "test")
MODALITIES = ("text", "image")
DEFAULT_ENCODER = "default"
"""Name of the encoder of a modality that the sections ``[text]``, ``[image]``, ``[joint]`` set."""
EncoderPair = tuple[str, str]
"""Names of a text and of an image encoder."""
OWN_PAIR: EncoderPair = (DEFAULT_ENCODER, DEFAULT_ENCODER)


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Raises ValueError, with the valid names, where a name is not among them."""
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r}; valid: {', '.join(valid)}")
