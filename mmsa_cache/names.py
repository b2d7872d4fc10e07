"""Names that every layer knows: splits, modalities, encoders."""

from __future__ import annotations

SPLITS = ("train", "test")
MODALITIES = ("text", "image")
DEFAULT_ENCODER = "default"
"""Name of the encoder of a modality that the sections ``[text]``, ``[image]``, ``[joint]`` set."""
EncoderPair = tuple[str, str]
"""Names of a text and of an image encoder."""
OWN_PAIR: EncoderPair = (DEFAULT_ENCODER, DEFAULT_ENCODER)
