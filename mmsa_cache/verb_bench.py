"""``mmsa bench``: speed, measured side by side in one run on the user's own data and encoders."""

from __future__ import annotations

import platform
from typing import Any

from .config import Settings
from .errors import DataError
from .features import MODALITIES, load_samples
from .pipeline import compute_here, pick_device, reader_of, resolve_encoder


def extract(settings: Settings, pairs: int, rounds: int) -> dict[str, Any]:
    """Measures stage one; see `extract.bench.bench`.

    Args:
        settings: The command's settings.
        pairs: Pairs of the training split, evenly spread over it; all where there are fewer.
        rounds: Turns that each way takes.

    Raises:
        DataError: There are no pairs.
    """
    import torch

    from extract.bench import bench

    samples = load_samples(settings, "train")
    if not samples:
        raise DataError("The training split is empty: there is nothing to measure.")
    chosen = [samples[i * len(samples) // pairs] for i in range(min(pairs, len(samples)))]
    if pairs >= len(samples):
        chosen = samples
    device = pick_device(settings.device)
    compute = compute_here(settings)
    specs = {name: resolve_encoder(settings, name, compute) for name in MODALITIES}
    encoders = {name: spec.load(device) for name, spec in specs.items()}
    figures = bench(
        chosen,
        encoders["text"],
        encoders["image"],
        {name: reader_of(name, spec, settings.seed) for name, spec in specs.items()},
        device,
        batch_size=settings.extract.batch_size,
        shard_rows=settings.cache.shard_rows,
        rounds=rounds,
    )
    on_gpu = device.type == "cuda"
    return {
        **figures,
        "encoders": {name: spec.label for name, spec in specs.items()},
        "compute": compute,
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
    }
