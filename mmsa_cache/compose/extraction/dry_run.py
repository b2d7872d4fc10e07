"""``mmsa extract --dry-run``: what an extraction would compute, store and download."""

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
from .extract import parse_encoders
from .feature_requests import feature_requests
from .lexicon import add_rule_encoders
from .readers import reader_of
from .reading import Split, preview_splits

_TIMED = 16
"""Rows that are timed, after a warm-up of as many."""
_FILES = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files of a model that are downloaded."""


@dataclass(frozen=True, slots=True)
class PlannedFeatures:
    """What an extraction would do for one encoder and split; None where that is unknown."""

    name: str
    split: str
    modality: str
    encoder: str
    rows: int
    missing: int
    """Rows that would be computed."""
    bytes: int | None
    """Size of the missing rows in the store."""
    seconds: float | None
    """Time of the missing rows in this process, estimated from a few of them."""
    here: bool
    """Whether the encoder is on this machine; else it would be downloaded first."""
    download_bytes: int | None


def plan_extraction(
    settings: Settings, split: str, encoders: str = DEFAULT_ENCODER
) -> list[PlannedFeatures]:
    """What `extract.extract_splits` would do; nothing is downloaded or written.

    Encoders on this machine are loaded, and encode a few of the missing rows.

    Raises:
        MmsaError: As `extract.extract_splits` raises.
    """
    check_split(split, (*SPLITS, ALL))
    store = Store(settings.cache.dir, renewing=True)
    policy = PathPolicy(settings, store.root)
    settings = use_stored_data_settings(settings, store, policy, extracting=True)
    splits = preview_splits(settings, store, split)
    names = add_rule_encoders(parse_encoders(settings, store, encoders), settings, store, splits)
    return [
        planned
        for name in names
        for modality in MODALITIES
        for planned in _plan_encoder(settings, store, policy, name, modality, splits)
    ]


def _plan_encoder(
    settings: Settings,
    store: Store,
    policy: PathPolicy,
    name: str,
    modality: str,
    splits: Sequence[Split],
) -> Iterator[PlannedFeatures]:
    """The plan of one encoder, which is loaded once for all splits."""
    try:
        requests = list(
            feature_requests(settings, store, policy, name, splits, (modality,), online=False)
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
    for request in requests:
        rows = request.split.rows[modality]
        missing = np.flatnonzero(store.row_indices(request.encoder, rows.sample_rows) < 0)
        if len(missing) and cost is None:
            cost = _measure_cost(settings, request.spec, rows, missing)
        size_of_row, seconds = cost or (0.0, 0.0)
        yield PlannedFeatures(
            name,
            request.split.about.split,
            modality,
            request.encoder.identity.label,
            len(rows),
            len(missing),
            round(size_of_row * len(missing)),
            round(seconds * len(missing), 1),
            True,
            0,
        )


def _measure_cost(
    settings: Settings, spec: EncoderSpec, rows: RowPlan, missing: NDArray[np.int64]
) -> tuple[float, float]:
    """Bytes and seconds a row, measured on a few of the missing rows."""
    device = pick_device(settings.device)
    encoder, reader = spec.load(device), reader_of(spec, settings.seed)
    chosen = [rows[int(index)] for index in missing[:: max(1, len(missing) // (2 * _TIMED))]]
    batch_size = rows_a_batch(settings.extract.batch_size, device)
    encode_rows(chosen[:_TIMED], reader, encoder, device, batch_size)
    timed = chosen[_TIMED : 2 * _TIMED] or chosen
    started = time.monotonic()
    encode_rows(timed, reader, encoder, device, batch_size)
    seconds = (time.monotonic() - started) / len(timed)
    return estimate_bytes(rows, reader, encoder), seconds


def _size_on_hub(model: str, modality: str) -> int | None:
    """Bytes of a model's files by the hub; None where that is unknown."""
    if os.path.isdir(model):  # noqa: PTH112  (no error for names that are too long)
        return None
    with contextlib.suppress(Exception):  # the hub's client raises many kinds
        from huggingface_hub import HfApi

        repository = f"sentence-transformers/{MINILM}" if model == MINILM else model
        if modality == "image" and "/" not in model:
            import timm

            config = timm.models.get_pretrained_cfg(model)
            repository = config.hf_hub_id if config else model
        info = HfApi().model_info(repository, files_metadata=True, timeout=10)
        sizes = [file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(_FILES)]
        return sum(sizes) or None
    return None
