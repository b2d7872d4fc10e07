"""Loads encoders for extraction."""

from __future__ import annotations

import torch

from extract.encoders.compiled import compile_blocks
from extract.encoders.protocol import Encoder
from extract.streams import rows_a_batch
from mmsa_cache.config.settings import Settings
from mmsa_cache.console import say

from ..session.encoders import EncoderSpec


def load_encoder(spec: EncoderSpec, device: torch.device, settings: Settings) -> Encoder:
    """Loads an encoder; its blocks are compiled on a GPU, if ``[extract] compile`` says so.

    Args:
        spec: The resolved encoder.
        device: Its device.
        settings: The command's.
    """
    encoder = spec.load(device)
    if settings.extract.compile and device.type != "cpu":
        rows = rows_a_batch(settings.extract.batch_size, device)
        blocks = compile_blocks(encoder, min(rows, settings.cache.shard_rows), device)
        if blocks is not None and blocks.works:
            say(f"{spec.label}: {blocks.count} blocks are compiled; the first batch waits.")
    return encoder
