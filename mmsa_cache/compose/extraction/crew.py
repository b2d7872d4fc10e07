"""The workers of a command, and how they find encoders."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from extract.crew.local import LocalCrew
from extract.crew.protocol import Crew, EncoderLoader, Sealer
from extract.encoders.protocol import Encoder
from extract.plan import Reader
from mmsa_cache.config.settings import Settings
from mmsa_cache.errors import DeviceError, ModelError, SettingsError
from mmsa_cache.files.hashing import digest
from mmsa_cache.native.cores import usable_cores
from mmsa_cache.native.device import device_kind, pick_device
from mmsa_cache.store.fingerprint import differences
from mmsa_cache.store.identity import EncoderIdentity

from ..session.encoders import resolve_encoder
from .feature_requests import FeatureRequest
from .loading import load_encoder
from .readers import reader_of

EngineName = Literal["local", "ray"]
_MAX_WORKERS_A_CORE = 32
"""On this machine."""
_MAX_DIGITS = 4
"""Of a GPU's number."""
_CORES_A_WORKER = 8
"""On the CPU, unless the number of workers is given."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """The options that choose workers; without any, this process does the work.

    Raises:
        SettingsError: They contradict each other.
    """

    engine: EngineName | None = None
    """Default: local, if `workers` or `target` is given."""
    workers: int | None = None
    address: str | None = None
    """Of a Ray cluster; default: RAY_ADDRESS, or one of this user here, else one is started."""
    target: str | None = None
    """URL of an object store for the features."""
    devices: tuple[int, ...] = ()
    """Numbers of GPUs to use; default: the settings' device, or all GPUs where it names none."""
    gpus_by_default: bool = False
    """Whether `with_all_gpus` named the GPUs: this process then does small amounts of work."""

    def __post_init__(self) -> None:
        if len(set(self.devices)) < len(self.devices):
            raise SettingsError("--devices names one of them twice.", "Give each number once.")
        if self.devices and self.engine == "ray":
            raise SettingsError(
                "--devices are GPUs of this machine.", "Leave it out: a Ray worker has its own GPU."
            )
        if self.address is not None and self.engine != "ray":
            raise SettingsError("--address is of a Ray cluster.", "Give --engine ray with it.")
        most = _MAX_WORKERS_A_CORE * usable_cores()
        if self.engine != "ray" and (self.workers or 0) > most:
            raise SettingsError(
                f"--workers {self.workers}: this machine would start so many processes at once.",
                f"Give {most} at most; on the CPU more than one a core are no faster.",
            )

    @property
    def chosen(self) -> EngineName | None:
        """What runs the workers; None: this process does the work."""
        implied = self.workers is not None or self.target is not None or len(self.devices) > 1
        return self.engine or ("local" if implied else None)

    def with_all_gpus(self, settings: Settings) -> EngineRequest:
        """The request with all GPUs named, if there are several and the device is ``cuda``.

        Raises:
            DeviceError: There is no such device.
            SettingsError: Both GPUs and a device are named.
        """
        if self.devices and settings.device not in ("auto", "cuda"):
            raise SettingsError(
                f"--devices and the device {settings.device} do not go together.",
                "Give one of them.",
            )
        device = self.device(settings)
        several = device.type == "cuda" and device.index is None and not self.devices
        if not several or self.engine == "ray" or torch.cuda.device_count() < 2:
            return self
        every = tuple(range(torch.cuda.device_count()))
        return replace(self, devices=every, gpus_by_default=self.chosen is None)

    def device(self, settings: Settings) -> torch.device:
        """The device of models; that of a cluster's workers need not exist on this machine.

        Raises:
            DeviceError: There is no such device.
        """
        if self.engine == "ray":
            return torch.device(device_kind(settings.device))
        if self.devices and not torch.cuda.is_available():
            raise DeviceError("There is no CUDA device.", "Leave --devices out.")
        cards = [pick_device(f"cuda:{number}") for number in self.devices]
        return cards[0] if len(cards) == 1 else pick_device("cuda" if cards else settings.device)

    def crew(
        self,
        source: EncoderLoader,
        sealers: Sequence[Sealer],
        device: torch.device,
        batch_size: int | None,
    ) -> Crew:
        """Starts the workers.

        Args:
            source: Opens the encoder of each job.
            sealers: Seal the shards of each job.
            device: See `device`; all workers have one of its kind.
            batch_size: Rows a forward pass; None: the default of the device.
        """
        if self.engine == "ray":
            from extract.crew.ray_crew import RayCrew

            gpu = device.type != "cpu"
            address = self.address or "auto"
            return RayCrew(source, sealers, address, self.workers, gpu=gpu, batch_size=batch_size)
        alone = self.engine is None and len(self.devices) < 2
        workers = self.workers or (1 if alone else None)
        return LocalCrew(source, sealers, crew_devices(device, workers, self.devices), batch_size)


def crew_devices(kind: torch.device, workers: int | None, numbers: Sequence[int] = ()) -> list[str]:
    """The device of each worker on this machine.

    Args:
        kind: The CPU, a GPU, or any GPUs.
        workers: Number of workers; default: one a GPU, or one for `_CORES_A_WORKER` cores.
        numbers: Numbers of the GPUs; empty: all.
    """
    if kind.type == "cpu":
        return ["cpu"] * (workers or max(1, usable_cores() // _CORES_A_WORKER))
    if kind.index is not None:
        numbers = [kind.index]
    numbers = numbers or range(torch.cuda.device_count())
    return [f"{kind.type}:{numbers[i % len(numbers)]}" for i in range(workers or len(numbers))]


def parse_devices(text: str | None) -> tuple[int, ...]:
    """Parses ``--devices``, as ``0,1``.

    Raises:
        SettingsError: The text is invalid.
    """
    names = text.split(",") if text is not None else []
    if not all(name.isdecimal() and len(name) <= _MAX_DIGITS for name in names):
        raise SettingsError(f"--devices takes numbers, received {text!r}.", "Write --devices 0,1.")
    return tuple(map(int, names))


@dataclass(frozen=True, slots=True)
class _EncoderReference:
    """The settings of an encoder, and the identity that it must have."""

    settings: Settings
    identity: EncoderIdentity


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """Opens the encoders of jobs on a worker's machine; can be pickled.

    Files are found as on the driver: by hub names, or by paths in its working folder.
    """

    jobs: tuple[_EncoderReference, ...]
    seed: int
    """Of augmentation."""
    folder: Path
    """Working folder of the driver."""
    _loaded: dict[str, tuple[Encoder, Reader]] = field(default_factory=dict)
    """By fingerprint: jobs of several splits share an encoder."""

    @classmethod
    def of(cls, requests: Sequence[FeatureRequest], seed: int) -> EncoderSource:
        """A source with one job a request."""
        # The address of a database may hold a password, and workers do not need it.
        references = [
            _EncoderReference(
                request.settings.model_copy(update={"storage": None}), request.encoder.identity
            )
            for request in requests
        ]
        return cls(tuple(references), seed, Path.cwd())

    def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
        """Loads the encoder of a job, and makes the reader of its rows.

        Raises:
            ModelError: The encoder is not found here, or differs from the driver's.
        """
        reference = self.jobs[job]
        identity, key = reference.identity, digest(reference.identity.fields)
        if key not in self._loaded:
            with contextlib.suppress(OSError):  # where there are no files, they are not needed
                os.chdir(self.folder)
            own = reference.settings.model_copy(update={"device": device.type})
            compute = str(identity.fields["compute"])
            spec = resolve_encoder(own, identity.modality, compute, online=True)
            if spec.identity != identity:
                changes = "; ".join(differences(identity.fields, spec.identity.fields))
                raise ModelError(
                    f"{identity.label} is another encoder on {platform.node()}: {changes}",
                    "Have the same versions, models and kind of device on all machines.",
                )
            self._loaded[key] = load_encoder(spec, device, own), reader_of(spec, self.seed)
        return self._loaded[key]
