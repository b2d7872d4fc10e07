"""``mmsa bench``: speed, measured side by side in one run on the user's own data and encoders."""

from __future__ import annotations

import platform
from typing import Any

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.dataset import Sample
from mmsa_cache.errors import DataError

from .pipeline import compute_here, notes_of, pick_device, reader_of, resolve_encoder
from .samples import MODALITIES, load_samples


def extract(
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
    from extract import precision
    from extract.bench import bench
    from extract.engine import plan_rows

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
    readers = {name: reader_of(name, spec, settings.seed) for name, spec in specs.items()}
    batch_size, shard_rows = settings.extract.batch_size, settings.cache.shard_rows
    figures = bench(
        chosen,
        encoders["text"],
        encoders["image"],
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
        "device": _device_name(device),
    }


def train(settings: Settings, rounds: int, threads: int) -> dict[str, Any]:
    """Measures stage two on the training split's caches; see `fuse.bench`.

    Args:
        settings: The command's settings.
        rounds: Turns that each way takes.
        threads: CPU threads of the training loops (the encoders take all).
    """
    import torch

    from fuse import bench

    from .train import labelled

    samples, bank, origin = labelled(settings)
    folders = [settings.cache.dir / "train" / m / origin[m] for m in MODALITIES]
    names = origin["classes"]
    every = torch.get_num_threads()
    record = bench.bench_reading(folders, bank.guids, rounds)
    torch.set_num_threads(threads)
    record |= bench.bench_epochs(bank, names, rounds)
    record |= bench.bench_folds(bank, names, rounds)
    torch.set_num_threads(every)
    in_loop = bench.bench_encoders_in_loop(_encode_now(settings, samples), bank, names, rounds)
    record["encoders_in_loop_batch_seconds"] = in_loop
    record["ratio_encoders_in_loop"] = in_loop * record["batches"] / record["epoch_seconds"]
    return {
        **record,
        "threads": threads,
        "rounds": rounds,
        "encoders": {m: resolve_encoder(settings, m).label for m in MODALITIES},
        "notes": notes_of(settings),
        "device": _device_name(bank.labels.device),
    }


def _encode_now(settings: Settings, samples: list[Sample]) -> Any:
    """Reads and encodes samples of a split, as stage one does, in one thread after another."""
    from extract.engine import Row, read_rows

    device = pick_device(settings.device)
    parts = []
    for modality in MODALITIES:
        spec = resolve_encoder(settings, modality, compute_here(settings))
        parts.append((spec.load(device), reader_of(modality, spec, settings.seed)))

    def encode(indices: list[int]) -> None:
        rows = [Row(samples[i], 0) for i in indices]
        for encoder, reader in parts:
            encoder.encode(read_rows(rows, reader, encoder).inputs)

    return encode


def _device_name(device: Any) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or "cpu"
