"""``mmsa extract``: composes data, encoders and the cache."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.filesize import decimal

from .adapters import find_layout
from .config import Settings
from .console import progress, say
from .dataset import SPLITS, Sample
from .errors import SettingsError
from .features import MODALITIES, cache_folder, copies_of, take_in
from .fingerprint import cache_name
from .pipeline import locate, pick_device, reader_of
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
        reading = {name: pool.submit(take_in, settings, name) for name in wanted}
        _import_libraries()
        taken = {name: task.result() for name, task in reading.items()}
    for _, report in taken.values():
        say(report.summary())
    encoders: dict[tuple[str, str], Any] = {}
    return [
        _extract_one(settings, name, taken[name][0], modality, encoders)
        for name in wanted
        for modality in MODALITIES
    ]


def _import_libraries() -> None:
    """The imports that resolving an encoder needs; they take seconds."""
    from extract.compat import prepare_torchvision

    prepare_torchvision()
    import timm  # noqa: F401


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
    encoders: dict[tuple[str, str], Any],
) -> dict[str, Any]:
    from extract.engine import estimate_bytes, extract, plan_rows

    rows = plan_rows(samples, copies_of(settings, split, samples))
    spec, fields = locate(settings, split, modality, [(row.sample, row.variant) for row in rows])
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
            device = pick_device(settings.device)
            key = (modality, fields["compute"])
            if key not in encoders:
                encoders[key] = spec.load(device)
            encoder, reader = encoders[key], reader_of(modality, spec, settings.seed)
            each = estimate_bytes(rows, reader, encoder)
            padded = encoder.size.padded_float32_bytes
            say(
                f"{title}: about {decimal(round(each * len(rows)))}, {decimal(round(each))} a row "
                f"(padded float32: {decimal(padded)} a row)."
            )
            with progress(title, len(rows), "rows", there) as advance:
                extract(
                    rows,
                    reader,
                    encoder,
                    device,
                    writer,
                    shard_rows=settings.cache.shard_rows,
                    batch_size=settings.extract.batch_size,
                    advance=lambda count: advance(count, ""),
                    notice=lambda text: say(f"{title}: {text}"),
                )
    return {
        "split": split,
        "modality": modality,
        "encoder": spec.label,
        "directory": str(directory),
        "samples": len(samples),
        "rows": len(rows),
        "rows_already_there": there,
        "bytes": writer.bytes_done,
        "seconds": round(time.monotonic() - started, 2),
    }
