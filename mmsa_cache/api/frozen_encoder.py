"""Frozen encoders that encode each text and picture once in a process."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from extract.inputs.pillow_pixels import read_pixels
from extract.plan import Row, plan_rows
from extract.shards import encode_rows
from extract.streams import rows_a_batch
from mmsa_cache.compose.extraction.readers import reader_of
from mmsa_cache.compose.session.encoders import default_precision, resolve_encoder
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import ABSENT, Sample
from mmsa_cache.data.scan import single_sample
from mmsa_cache.errors import DataError
from mmsa_cache.features.modality import ModalityFeatures
from mmsa_cache.native.device import pick_device
from mmsa_cache.store.schema import Shard
from mmsa_cache.validation import validate

_MOST_BYTES = 1 << 30
"""Size of an encoder's cache; a larger one is emptied."""


class FrozenEncoder:
    """An encoder with a cache of its features.

    Args:
        modality: ``text`` or ``image``.
        settings: The sections of the encoder.
        online: Whether it may be downloaded.

    Raises:
        ModelError: It is not found, or may not be used.
    """

    def __init__(self, modality: str, settings: Settings, online: bool) -> None:
        self._modality, self._settings = modality, settings
        self._device = pick_device(settings.device)
        self._spec = resolve_encoder(settings, modality, default_precision(settings), online=online)
        self._encoder = self._spec.load(self._device)
        self.identity = self._spec.identity
        self._read_file = reader_of(self._spec, settings.seed)
        self._shards: list[Shard] = []
        self._row_of: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def features(self, posts: Sequence[Any]) -> ModalityFeatures:
        """Features of texts or pictures.

        Args:
            posts: Texts; or paths of pictures, or Pillow's pictures. None where a post has none;
                at least one has.

        Raises:
            DataError: With every text or picture that cannot be read.
        """
        samples = self._samples(posts)
        rows = plan_rows(samples, {}, "none", self._modality)
        pictures = {s.image_sha256[:32]: p for s, p in zip(samples, posts, strict=True)}

        def read(row: Row) -> tuple[Any, str]:
            picture = pictures.get(row.key.hex())
            if isinstance(picture, Image.Image):
                return read_pixels(picture, row.sample.guid), ""
            return self._read_file(row)

        with self._lock:
            if sum(shard.nbytes for shard in self._shards) > _MOST_BYTES:
                self._shards, self._row_of = [], {}
            missing = [row for row in rows if row.key not in self._row_of]
            if missing:
                batch = rows_a_batch(None, self._device)
                shard = encode_rows(missing, read, self._encoder, self._device, batch)
                first = len(self._row_of)
                self._row_of |= {row.key: first + i for i, row in enumerate(missing)}
                self._shards.append(shard)
            stored = np.array([self._row_of[row.key] for row in rows])
            return ModalityFeatures(
                self._shards, f"X_{self._modality}", stored, rows.sample_rows.table
            )

    def _samples(self, posts: Sequence[Any]) -> list[Sample]:
        samples, problems = [], []
        for number, post in enumerate(posts):
            try:
                sample = self._sample(post)
            except DataError as error:
                problems.append(f"row {number}: {error.message}")
                continue
            samples.append(replace(sample, guid=f"row {number} of X_{self._modality}"))
        if problems:
            message = (
                f"{len(problems)} of {len(posts)} entries of X_{self._modality} cannot be read."
            )
            raise DataError(message, "", problems)
        return samples

    def _sample(self, post: Any) -> Sample:
        if post is None:
            return Sample("", None, None, None, ABSENT, ABSENT)
        if self._modality == "text":
            if not isinstance(post, str):
                raise DataError(f"a text is expected, received a {type(post).__name__}")
            return single_sample(post, None)
        if not isinstance(post, Image.Image):
            return single_sample(None, Path(post))
        pixels = read_pixels(post, "the picture")
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        return Sample("", None, None, None, ABSENT, digest)


def frozen_encoder(
    modality: str, model: Any, *, tokens: bool, device: str, online: bool
) -> FrozenEncoder:
    """Loads an encoder; the last four stay loaded.

    Args:
        modality: ``text`` or ``image``.
        model: Name or folder, or the keys of its section in ``mmsa.toml``.
        tokens: Whether to compute features of single positions.
        device: Device that it runs on.
        online: Whether it may be downloaded.

    Raises:
        SettingsError: A key is not one of the section.
        ModelError: It is not found, or may not be used.
    """
    section = dict(model) if isinstance(model, dict) else {"model": str(model)}
    keep = "keep" if tokens else "none"
    settings = {modality: section, "device": device, "extract": {"tokens": keep}}
    return _loaded(modality, json.dumps(settings, sort_keys=True, default=str), online)


@functools.lru_cache(maxsize=4)
def _loaded(modality: str, settings: str, online: bool) -> FrozenEncoder:
    message = f"{modality}_model names no encoder."
    return FrozenEncoder(modality, validate(Settings, json.loads(settings), message, ""), online)
