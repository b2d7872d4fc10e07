"""``mmsa extract --dry-run``: what an extraction would compute, store and fetch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.encoders.weights import MINILM
from extract.plan import RowPlan
from extract.shards import encode_rows, estimate_bytes
from extract.streams import rows_a_batch
from mmsa_cache.config.settings import ALL, Settings
from mmsa_cache.errors import ModelError
from mmsa_cache.names import DEFAULT_ENCODER, MODALITIES, SPLITS, check_split
from mmsa_cache.native.device import pick_device

from ..session.completion import use_stored_data_settings
from ..session.encoders import EncoderSpec
from ..session.path_policy import PathPolicy
from ..session.store import Store
from .extract import chosen_encoders
from .lexicon import with_lexicon
from .readers import reader_of
from .reading import Split, seen_splits
from .wanted import wanted_features

_TRIED = 16
"""Rows that are encoded to learn how long one takes; as many warm up before."""
_FILES = (".safetensors", ".json", ".txt", ".model")
"""Of a model, those that are fetched."""


@dataclass(frozen=True, slots=True)
class PlannedFeatures:
    """What an extraction would do for one encoder and split; None where it cannot be known."""

    name: str
    split: str
    modality: str
    encoder: str
    rows: int
    missing: int
    """Rows that would be computed, or with another device or precision are not there."""
    bytes: int | None
    """That they would take in the store."""
    seconds: float | None
    """That they would take, by the time of a few of them, one after the other."""
    here: bool
    """Whether the encoder is on this machine; else it would be fetched first."""
    download_bytes: int | None


def plan_extraction(
    settings: Settings, split: str, encoders: str = DEFAULT_ENCODER
) -> list[PlannedFeatures]:
    """What `extract.extract_splits` would do; nothing is fetched or written.

    Encoders on this machine are loaded, and encode a few of the missing rows.

    Raises:
        MmsaError: As `extract.extract_splits` raises.
    """
    check_split(split, (*SPLITS, ALL))
    store = Store(settings.cache.dir, renewing=True)
    policy = PathPolicy(settings, store.root)
    settings = use_stored_data_settings(settings, store, policy, extracting=True)
    splits = seen_splits(settings, store, split)
    names = with_lexicon(chosen_encoders(settings, store, encoders), settings, store, splits)
    return [
        planned
        for name in names
        for modality in MODALITIES
        for planned in _planned(settings, store, policy, name, modality, splits)
    ]


def _planned(
    settings: Settings,
    store: Store,
    policy: PathPolicy,
    name: str,
    modality: str,
    splits: Sequence[Split],
) -> Iterator[PlannedFeatures]:
    """Of one encoder; its model is loaded once for all splits."""
    try:
        found = list(
            wanted_features(settings, store, policy, name, splits, (modality,), online=False)
        )
    except ModelError:
        own = settings.with_encoder(modality, name)
        model = own.joint.model or getattr(own, modality).model
        size = _size_on_hub(model, modality)
        for split in splits:
            count = len(split.rows[modality])
            yield PlannedFeatures(
                name, split.about.split, modality, model, count, count, None, None, False, size
            )
        return
    cost: tuple[float, float] | None = None
    for features in found:
        rows = features.split.rows[modality]
        places = store.row_indices(features.encoder, rows.wanted)
        missing = np.flatnonzero(places < 0)
        if len(missing) and cost is None:
            cost = _cost(settings, features.spec, rows, missing)
        each, seconds = cost or (0.0, 0.0)
        yield PlannedFeatures(
            name,
            features.split.about.split,
            modality,
            features.encoder.identity.label,
            len(rows),
            len(missing),
            round(each * len(missing)),
            round(seconds * len(missing), 1),
            True,
            0,
        )


def _cost(
    settings: Settings, spec: EncoderSpec, rows: RowPlan, missing: NDArray[np.int64]
) -> tuple[float, float]:
    """Bytes and seconds a row, by a few of those that are missing."""
    device = pick_device(settings.device)
    encoder, reader = spec.load(device), reader_of(spec, settings.seed)
    spread = [rows[int(place)] for place in missing[:: max(1, len(missing) // (2 * _TRIED))]]
    batch_size = rows_a_batch(settings.extract.batch_size, device)
    encode_rows(spread[:_TRIED], reader, encoder, device, batch_size)
    tried = spread[_TRIED : 2 * _TRIED] or spread
    started = time.monotonic()
    encode_rows(tried, reader, encoder, device, batch_size)
    seconds = (time.monotonic() - started) / len(tried)
    return estimate_bytes(rows, reader, encoder), seconds


def _size_on_hub(model: str, modality: str) -> int | None:
    """Bytes of a model's files, as the hub says; None where it does not."""
    if os.path.isdir(model):  # noqa: PTH112  (no error for names that are too long)
        return None
    with contextlib.suppress(Exception):  # the hub's client raises many kinds
        from huggingface_hub import HfApi

        repository = f"sentence-transformers/{MINILM}" if model == MINILM else model
        if modality == "image" and "/" not in model:
            import timm

            config = timm.models.get_pretrained_cfg(model)
            repository = config.hf_hub_id if config else model
        found = HfApi().model_info(repository, files_metadata=True, timeout=10)
        sizes = [file.size or 0 for file in found.siblings or [] if file.rfilename.endswith(_FILES)]
        return sum(sizes) or None
    return None
