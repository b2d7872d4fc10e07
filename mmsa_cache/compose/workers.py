"""What worker processes need: features and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mmsa_cache.config.settings import Settings
from mmsa_cache.data.splits import duplicate_groups
from mmsa_cache.features.source import shared_grids
from mmsa_cache.names import EncoderPair
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.native.device import pick_device

from .banks import open_bank
from .locate import origin_of
from .samples import load_samples


@contextlib.contextmanager
def prepared(
    settings: Settings, pairs: Sequence[EncoderPair], sides: Iterable[int], folder: Path
) -> Iterator[dict[str, Any]]:
    """The features, verified once, as `search.search` and `ablation.run` of `fuse` take them.

    Args:
        settings: The command's settings.
        pairs: See `banks.open_bank`.
        sides: See `source.shared_grids`.
        folder: See `source.shared_grids`.
    """
    samples = load_samples(settings, "train")
    bank = open_bank(settings, "train", samples, pairs)
    origin = origin_of(settings, bank, pairs)
    labels = bank.labels.numpy()
    making = shared_grids(bank, sides, folder, pairs)
    del bank  # once its grids are made, only the workers map the features
    with making as source:
        yield {
            "source": source,
            "labels": labels,
            "groups": duplicate_groups(samples),
            "names": tuple(origin["classes"]),
            "origin": origin,
        }


def devices_of(device: str, workers: int | None) -> list[str]:
    """A device a worker: the CPU for each, or the GPUs in turn."""
    kind = pick_device(device)
    if kind.type == "cpu":
        return ["cpu"] * (workers or usable_cores())
    gpus = [str(kind)] if kind.index is not None else []
    gpus = gpus or [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [gpus[i % len(gpus)] for i in range(workers or len(gpus))]
