"""What worker processes need: features and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from fuse.search.pool import TrainingData
from mmsa_cache.features.source import shared_grids
from mmsa_cache.names import MODALITIES, EncoderPair
from mmsa_cache.native.cores import usable_cores

from .origin import origin_of
from .session import Session


@contextlib.contextmanager
def training_data(
    session: Session,
    split: str,
    pairs: Sequence[EncoderPair],
    sides: Iterable[int],
    folder: Path,
) -> Iterator[TrainingData]:
    """The rows that a protocol divides, verified once, as worker processes open them.

    Args:
        session: The command's.
        split: See `mmsa_cache.data.protocol.Protocol.split`.
        pairs: Encoders whose features are read.
        sides: See `source.shared_grids`.
        folder: See `source.shared_grids`.
    """
    bank = session.bank(split, pairs)
    labels = bank.labels.numpy()
    rows = {modality: session.rows(split, modality) for modality in MODALITIES}
    making = shared_grids(bank, rows, sides, folder, pairs)
    del bank  # once its grids are made, only the workers map the features
    with making as source:
        origin = origin_of(session, pairs, split)
        yield TrainingData(source, labels, session.groups(split), origin)


_A_GPU = 3
"""Workers that share a GPU: one's models are made and scored while another's are trained."""


def worker_devices(kind: torch.device, workers: int | None) -> list[str]:
    """A device a worker: the CPU for each, or the GPUs in turn, several workers each."""
    if kind.type == "cpu":
        return ["cpu"] * (workers or usable_cores())
    gpus = [str(kind)] if kind.index is not None else []
    gpus = gpus or [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    each = min(_A_GPU, max(1, usable_cores() // len(gpus)))
    return [gpus[i % len(gpus)] for i in range(workers or each * len(gpus))]
