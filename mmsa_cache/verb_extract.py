"""``mmsa extract``: composes data, encoders and the cache."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .adapters import find_layout
from .config import Settings
from .console import progress, say
from .dataset import SPLITS, Sample
from .errors import SettingsError
from .features import MODALITIES, cache_fields, cache_folder, copies_of, load_samples
from .fingerprint import cache_name
from .pipeline import build_encoder, reader_of, resolve_encoder
from .store import CacheWriter, nearest_cache


def run(settings: Settings, split: str) -> list[dict[str, Any]]:
    """Extracts what is missing of one split or of all.

    Args:
        settings: The command's settings.
        split: ``train``, ``test`` or ``all``.

    Returns:
        One record a cache: split, modality, encoder, directory, rows, rows that were already
        there, and seconds.

    Raises:
        SettingsError: Unknown split.
        MmsaError: As the data, the encoders and the cache raise.
    """
    if split not in (*SPLITS, "all"):
        raise SettingsError(f"Unknown split {split!r}.", f"Valid: {', '.join(SPLITS)}, all.")
    wanted = _splits_of(settings) if split == "all" else (split,)
    with ThreadPoolExecutor(1) as pool:  # files are hashed while the libraries are imported
        reading = {name: pool.submit(load_samples, settings, name) for name in wanted}
        specs = {modality: resolve_encoder(settings, modality) for modality in MODALITIES}
        samples = {name: task.result() for name, task in reading.items()}
    encoders: dict[str, Any] = {}
    return [
        _extract_one(settings, name, samples[name], modality, specs[modality], encoders)
        for name in wanted
        for modality in MODALITIES
    ]


def _splits_of(settings: Settings) -> tuple[str, ...]:
    """The splits that the data has: raw MVSA knows no test, unlabelled pairs no train."""
    if settings.data.root is None:
        return SPLITS  # reading says what is missing
    return tuple(find_layout(settings.data.root).splits)


def _extract_one(
    settings: Settings,
    split: str,
    samples: list[Sample],
    modality: str,
    spec: Any,
    encoders: dict[str, Any],
) -> dict[str, Any]:
    from extract.augment import POLICY
    from extract.engine import extract, plan_rows

    rows = plan_rows(samples, copies_of(settings, split, samples))
    fields = cache_fields(
        spec.fields, settings, [(row.sample, row.variant) for row in rows], POLICY
    )
    parent = cache_folder(settings, split, modality)
    directory = parent / cache_name(spec.name, fields)
    title = f"{split} {modality} · {spec.label}"
    started = time.monotonic()
    writer = CacheWriter(directory, fields, len(rows))
    nearest = nearest_cache(parent, fields)
    if nearest is not None and nearest[1]:
        say(f"{title}: the cache {nearest[0].name} does not serve:")
        for difference in nearest[1]:
            say(f"  - {difference}")
    with writer.lock(lambda: say(f"{title}: another extraction is at work here; waiting for it.")):
        there = writer.rows_done
        if writer.complete:
            say(f"{title}: complete, {there} rows; nothing to do.")
        else:
            if there:
                say(f"{title}: resuming, {there} of {len(rows)} rows were there.")
            if modality not in encoders:
                encoders[modality] = build_encoder(spec, modality, settings.device)
            encoder = encoders[modality]
            with progress(title, len(rows), "rows", there) as advance:
                extract(
                    rows,
                    reader_of(modality, encoder, settings.seed),
                    encoder,
                    writer,
                    shard_rows=settings.cache.shard_rows,
                    batch_size=settings.extract.batch_size,
                    advance=lambda count: advance(count, ""),
                )
    return {
        "split": split,
        "modality": modality,
        "encoder": spec.label,
        "directory": str(directory),
        "samples": len(samples),
        "rows": len(rows),
        "rows_already_there": there,
        "seconds": round(time.monotonic() - started, 2),
    }
