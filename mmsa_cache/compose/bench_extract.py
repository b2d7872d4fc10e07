"""``mmsa bench extract``: stage one, measured on the user's own data and encoders."""

from __future__ import annotations

from typing import Any

from extract import precision
from extract.bench import bench
from extract.plan import plan_rows
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import DataError
from mmsa_cache.native.device import device_name, pick_device

from .encoders import Spec, compute_here, resolve_image_encoder, resolve_text_encoder
from .live import reader_of
from .samples import load_samples


def bench_extract(
    settings: Settings, pairs: int, rounds: int, *, precision_effect: bool = False
) -> dict[str, Any]:
    """Measures stage one; see `extract.bench.bench`.

    Args:
        settings: The command's settings.
        pairs: Pairs of the training split, evenly spread over it; all where there are fewer.
        rounds: Turns that each way takes.
        precision_effect: Whether the features of half precision are compared with float32's too,
            on as many pairs as a shard holds.

    Raises:
        DataError: There are no pairs.
    """
    samples = load_samples(settings, "train")
    if not samples:
        raise DataError("The training split is empty: there is nothing to measure.")
    chosen = [samples[i * len(samples) // pairs] for i in range(min(pairs, len(samples)))]
    if pairs >= len(samples):
        chosen = samples
    device = pick_device(settings.device)
    compute = compute_here(settings)
    text = resolve_text_encoder(settings, compute)
    image = resolve_image_encoder(settings, compute)
    specs: dict[str, Spec] = {"text": text, "image": image}
    readers = {name: reader_of(name, spec, settings.seed) for name, spec in specs.items()}
    batch_size, shard_rows = settings.extract.batch_size, settings.cache.shard_rows
    figures = bench(
        chosen,
        text.load(device),
        image.load(device),
        readers,
        device,
        batch_size=batch_size,
        shard_rows=shard_rows,
        rounds=rounds,
    )
    if precision_effect:
        rows = plan_rows(chosen, {})[:shard_rows]
        figures["precision_effect"] = {
            name: precision.precision_effect(spec, rows, readers[name], device, batch_size)
            for name, spec in specs.items()
        }
    return {
        **figures,
        "encoders": {name: spec.label for name, spec in specs.items()},
        "compute": compute,
        "device": device_name(device),
    }
