"""``mmsa bench train``: stage two, measured on the user's own caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from extract.plan import Row, read_rows
from fuse import bench
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.names import MODALITIES
from mmsa_cache.native.device import device_name, pick_device

from .encoders import compute_here, notes_of, resolve_encoder
from .live import reader_of
from .training_split import labelled


def bench_train(settings: Settings, rounds: int, threads: int) -> dict[str, Any]:
    """Measures stage two on the training split's caches; see `fuse.bench`.

    Args:
        settings: The command's settings.
        rounds: Turns that each way takes.
        threads: CPU threads of the training loops (the encoders take all).
    """
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
        "device": device_name(bank.labels.device),
    }


def _encode_now(settings: Settings, samples: list[Sample]) -> Callable[[Sequence[int]], None]:
    """Reads and encodes samples of a split, as stage one does, in one thread after another."""
    device = pick_device(settings.device)
    parts = []
    for modality in MODALITIES:
        spec = resolve_encoder(settings, modality, compute_here(settings))
        parts.append((spec.load(device), reader_of(modality, spec, settings.seed)))

    def encode(indices: Sequence[int]) -> None:
        rows = [Row(samples[i], 0) for i in indices]
        for encoder, reader in parts:
            encoder.encode(read_rows(rows, reader, encoder).inputs)

    return encode
