"""Which workers a command is run by, and where they find encoders."""

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
from .loading import load_encoder
from .readers import reader_of
from .wanted import WantedFeatures

EngineName = Literal["local", "ray"]
_MOST_A_CORE = 32
"""Workers on this machine."""
_DIGITS = 5
"""Of a GPU's number, fewer than these."""
_CORES = 8
"""Of a worker on the CPU, unless their number is given."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a command asked for; nothing at all is this process.

    Raises:
        SettingsError: It contradicts itself.
    """

    engine: EngineName | None = None
    """None with `workers` or `target` is local."""
    workers: int | None = None
    address: str | None = None
    """Of a Ray cluster; None: RAY_ADDRESS or one of this user's here, else one is started."""
    target: str | None = None
    """URL of an object store that takes the features."""
    devices: tuple[int, ...] = ()
    """Numbers of GPUs to use; none: the settings' device, all GPUs where it is no certain one."""
    by_itself: bool = False
    """Whether `settled` named the GPUs: then little work is done by this process."""

    def __post_init__(self) -> None:
        if len(set(self.devices)) < len(self.devices):
            raise SettingsError("--devices names one of them twice.", "Give each number once.")
        if self.devices and self.engine == "ray":
            raise SettingsError(
                "--devices are GPUs of this machine.", "Leave it out: a Ray worker has its own GPU."
            )
        if self.address is not None and self.engine != "ray":
            raise SettingsError("--address is of a Ray cluster.", "Give --engine ray with it.")
        most = _MOST_A_CORE * usable_cores()
        if self.engine != "ray" and (self.workers or 0) > most:
            raise SettingsError(
                f"--workers {self.workers}: this machine would start so many processes at once.",
                f"Give {most} at most; on the CPU more than one a core are no faster.",
            )

    @property
    def chosen(self) -> EngineName | None:
        """What runs the workers; None: this process does the work."""
        asked = self.workers is not None or self.target is not None or len(self.devices) > 1
        return self.engine or ("local" if asked else None)

    def settled(self, settings: Settings) -> EngineRequest:
        """The same with all GPUs named where there are several and no certain one is asked for.

        Raises:
            DeviceError: There is no such device.
            SettingsError: GPUs are named, and the device besides.
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
        everything = tuple(range(torch.cuda.device_count()))
        return replace(self, devices=everything, by_itself=self.chosen is None)

    def device(self, settings: Settings) -> torch.device:
        """Where models run; that of a cluster's workers need not be on this machine.

        Raises:
            DeviceError: There is none.
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
            source: Where they find the encoder of each job.
            sealers: Where the shards of each job go.
            device: See `device`; its kind is that of all workers.
            batch_size: Rows a forward pass; None: what suits the device.
        """
        if self.engine == "ray":
            from extract.crew.ray_crew import RayCrew

            gpu = device.type != "cpu"
            address = self.address or "auto"
            return RayCrew(source, sealers, address, self.workers, gpu=gpu, batch_size=batch_size)
        alone = self.engine is None and len(self.devices) < 2
        workers = self.workers or (1 if alone else None)
        return LocalCrew(source, sealers, devices_of(device, workers, self.devices), batch_size)


def devices_of(kind: torch.device, workers: int | None, numbers: Sequence[int] = ()) -> list[str]:
    """A device a worker on this machine.

    Args:
        kind: The CPU, a GPU, or any GPUs.
        workers: How many; None: one a GPU, on the CPU one for some cores.
        numbers: Of the GPUs; none: all.
    """
    if kind.type == "cpu":
        return ["cpu"] * (workers or max(1, usable_cores() // _CORES))
    if kind.index is not None:
        numbers = [kind.index]
    numbers = numbers or range(torch.cuda.device_count())
    return [f"{kind.type}:{numbers[i % len(numbers)]}" for i in range(workers or len(numbers))]


def card_numbers(text: str | None) -> tuple[int, ...]:
    """The GPUs that ``--devices`` names, as ``0,1``.

    Raises:
        SettingsError: It names none so.
    """
    names = text.split(",") if text is not None else []
    if not all(name.isdecimal() and len(name) < _DIGITS for name in names):
        raise SettingsError(f"--devices takes numbers, received {text!r}.", "Write --devices 0,1.")
    return tuple(map(int, names))


@dataclass(frozen=True, slots=True)
class _Named:
    """An encoder by the settings that lead to it, and what it must be."""

    settings: Settings
    identity: EncoderIdentity


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """Opens the encoders of jobs on a worker's machine; can be pickled.

    Files are found as the driver found them: by hub names, or by paths in its working folder.
    """

    jobs: tuple[_Named, ...]
    seed: int
    """Of augmentation."""
    folder: Path
    _loaded: dict[str, tuple[Encoder, Reader]] = field(default_factory=dict)
    """By fingerprint: jobs of several splits share an encoder."""

    @classmethod
    def of(cls, wanted: Sequence[WantedFeatures], seed: int) -> EncoderSource:
        """Those of some features, a job each."""
        # The address of a database may hold a password, and is of no use there.
        named = [
            _Named(each.settings.model_copy(update={"storage": None}), each.encoder.identity)
            for each in wanted
        ]
        return cls(tuple(named), seed, Path.cwd())

    def load(self, job: int, device: torch.device) -> tuple[Encoder, Reader]:
        """The encoder of a job, and how its rows are read.

        Raises:
            ModelError: It is not found here, or is another one than the driver's.
        """
        named = self.jobs[job]
        wanted, key = named.identity, digest(named.identity.fields)
        if key not in self._loaded:
            with contextlib.suppress(OSError):  # where there are no files, they are not needed
                os.chdir(self.folder)
            own = named.settings.model_copy(update={"device": device.type})
            compute = str(wanted.fields["compute"])
            spec = resolve_encoder(own, wanted.modality, compute, online=True)
            if spec.identity != wanted:
                found = "; ".join(differences(wanted.fields, spec.identity.fields))
                raise ModelError(
                    f"{wanted.label} is another encoder on {platform.node()}: {found}",
                    "Have the same versions, models and kind of device on all machines.",
                )
            self._loaded[key] = load_encoder(spec, device, own), reader_of(spec, self.seed)
        return self._loaded[key]
