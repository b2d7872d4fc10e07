"""Training data and devices of the workers of a search."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from fuse.search.pool import TrainingData, WorkerOptions, start_process
from mmsa_cache.errors import DeviceError
from mmsa_cache.features.source import DerivedName, share_derived
from mmsa_cache.names import MODALITIES, EncoderPair
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.native.mps import share_gpus
from mmsa_cache.native.ray_cluster import AUTO, ray_cluster

from ..extraction.crew import EngineRequest
from ..session.origin import origin_of
from ..session.session import Session

WORKERS_A_GPU = 4
"""Workers that share a GPU: some prepare and score models while others train. Without sharing, as
they take turns, four together were half as fast as one (H200)."""


@contextlib.contextmanager
def training_data(
    session: Session,
    split: str,
    pairs: Sequence[EncoderPair],
    derived: Iterable[DerivedName],
    folder: Path,
) -> Iterator[TrainingData]:
    """Opens and verifies the rows of a protocol, in a form that worker processes can open.

    Args:
        session: The command's.
        split: See `mmsa_cache.data.protocol.Protocol.split`.
        pairs: Encoders whose features are read.
        derived: See `source.share_derived`.
        folder: See `source.share_derived`.
    """
    bank = session.bank(split, pairs)
    labels = bank.labels.numpy()
    rows = {modality: session.rows(split, modality) for modality in MODALITIES}
    sharing = share_derived(bank, rows, derived, folder, pairs)
    del bank  # once they are derived, only the workers map the features
    with sharing as source:
        origin = origin_of(session, pairs, split)
        yield TrainingData(source, labels, session.groups(split), origin)


@contextlib.contextmanager
def search_workers(session: Session, request: EngineRequest) -> Iterator[WorkerOptions]:
    """The workers that a command requested; a cluster is connected while the block lasts.

    Raises:
        SettingsError: Ray is missing.
        DeviceError: The device, or the cluster, is not there.
    """
    if request.engine != "ray":
        with local_workers(session.device, request.workers) as workers:
            yield workers
        return
    with ray_cluster(request.address or AUTO) as ray:
        from fuse.search.ray_pool import RayProcess
        from fuse.search.ray_source import RaySource

        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        device = session.settings.device
        if device.startswith("cuda") and not gpus:
            raise DeviceError("No machine of the cluster has a GPU.", "Use --device cpu or auto.")
        on_gpus = gpus and device != "cpu"
        count = request.workers or max(1, gpus if on_gpus else cpus)
        # An actor sees the GPU that Ray gives it as the first one.
        devices = ["cuda:0" if on_gpus else "cpu"] * count
        start = partial(RayProcess, sharers=-(-count // gpus) if on_gpus else 1)
        yield WorkerOptions(devices, start=start, remote_source=RaySource.of)


@contextlib.contextmanager
def local_workers(kind: torch.device, workers: int | None) -> Iterator[WorkerOptions]:
    """Workers on this machine; several on a GPU share it while the block lasts.

    Args:
        kind: The CPU, a GPU, or all GPUs.
        workers: Number of workers; default: see `worker_devices`.
    """
    if kind.type == "cpu":
        yield WorkerOptions(worker_devices(kind, workers))
        return
    if (workers or usable_cores()) <= len(worker_devices(kind, None)):
        yield WorkerOptions(worker_devices(kind, workers))
        return
    with share_gpus() as variables:
        devices = worker_devices(kind, workers, shared=variables is not None)
        yield WorkerOptions(devices, start=partial(start_process, variables=variables or {}))


def worker_devices(kind: torch.device, workers: int | None, shared: bool = False) -> list[str]:
    """The device of each worker: the CPU, or the GPUs in turn.

    Args:
        kind: The CPU, a GPU, or all GPUs.
        workers: Number of workers; default: one a usable core, or one a GPU.
        shared: Whether workers can share a GPU: the default is then `WORKERS_A_GPU` a GPU, but no
            more in all than usable cores.
    """
    if kind.type == "cpu":
        return ["cpu"] * (workers or usable_cores())
    gpus = [str(kind)] if kind.index is not None else []
    gpus = gpus or [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    each = min(WORKERS_A_GPU, max(1, usable_cores() // len(gpus))) if shared else 1
    return [gpus[i % len(gpus)] for i in range(workers or each * len(gpus))]


def device_label(workers: WorkerOptions, request: EngineRequest) -> str:
    """The devices of workers, for people."""
    where = " of a Ray cluster" if request.engine == "ray" else ""
    if workers.devices[0] != "cpu":
        return f"GPUs{where}" if where else workers.devices[0]
    cores = len(workers.devices) if where else usable_cores()
    return f"{cores} CPU cores{where}"
