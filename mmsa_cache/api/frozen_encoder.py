"""Frozen encoders of this process, which encode every text and picture once."""

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
"""Features that an encoder keeps; with more, it forgets them all."""


class FrozenEncoder:
    """An encoder that keeps what it has encoded.

    Args:
        modality: ``text`` or ``image``.
        settings: Name it.
        online: Whether it may be fetched.

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
        self._places: dict[bytes, int] = {}
        self._lock = threading.Lock()

    def features(self, posts: Sequence[Any]) -> ModalityFeatures:
        """Features of texts, or of pictures by their paths or as Pillow has them.

        Args:
            posts: None where a post has none; one has.

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
                self._shards, self._places = [], {}
            missing = [row for row in rows if row.key not in self._places]
            if missing:
                batch = rows_a_batch(None, self._device)
                shard = encode_rows(missing, read, self._encoder, self._device, batch)
                first = len(self._places)
                self._places |= {row.key: first + at for at, row in enumerate(missing)}
                self._shards.append(shard)
            places = np.array([self._places[row.key] for row in rows])
            return ModalityFeatures(
                self._shards, f"X_{self._modality}", places, rows.sample_rows.table
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
    """An encoder; the last ones that were asked for stay loaded.

    Args:
        modality: ``text`` or ``image``.
        model: Its name or folder, or the keys of its section in ``mmsa.toml``.
        tokens: Whether the features of single positions are wanted.
        device: Where it runs.
        online: Whether it may be fetched.

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
    found = validate(Settings, json.loads(settings), message, "")
    return FrozenEncoder(modality, found, online)
