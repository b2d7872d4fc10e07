"""Looking at a device while something runs on it: launches, synchronisations, how busy it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mmsa_cache.native.timing import synchronize

_LAUNCHES = frozenset(
    {
        "cudaLaunchKernel",
        "cudaLaunchKernelExC",
        "cudaLaunchCooperativeKernel",
        "cuLaunchKernel",
        "cuLaunchKernelEx",
        "cudaGraphLaunch",
    }
)
"""Calls of the CUDA runtime and driver that put work on the card, as the profiler names them."""
_WAITS = frozenset({"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"})
_SYNC_WARNING = "called a synchronizing CUDA operation"
_SECONDS_BETWEEN_SAMPLES = 0.1
_MOST_OPERATIONS = 10
_PACKAGES = ("torch", "transformers", "timm", "optuna", "h5py", "numpy", "simplejpeg")


def machine(device: torch.device) -> dict[str, str]:
    """What the figures are of: card, driver, processor, versions."""
    found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "driver": _driver() if device.type == "cuda" else "–",
        "cuda": str(torch.version.cuda) if device.type == "cuda" else "–",
        "cores": str(os.cpu_count()),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return said.stdout.splitlines()[0].strip() if said.stdout else "unknown"


class Busy:
    """Samples how busy a device is while it is entered.

    On a GPU NVML's share of the last sample period in which a kernel ran; on the CPU the share of
    the cores' time that this process took.

    Args:
        device: The device.

    Attributes:
        samples: Shares from 0 to 1, ten a second.
    """

    def __init__(self, device: torch.device) -> None:
        self.samples: list[float] = []
        self._device, self._error = device, ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        before, ended = time.process_time(), False
        while not ended:  # the last sample is taken at the end, however soon that comes
            ended = self._ended.wait(_SECONDS_BETWEEN_SAMPLES)
            if self._device.type == "cuda":
                try:
                    self.samples.append(torch.cuda.utilization(self._device) / 100)
                except Exception as error:  # NVML's bindings are no dependency
                    self._error = f"{type(error).__name__}: {error}"
                    return
            else:
                now = time.process_time()
                share = (now - before) / _SECONDS_BETWEEN_SAMPLES / (os.cpu_count() or 1)
                self.samples.append(min(1.0, share))
                before = now

    @property
    def share(self) -> float:
        """Mean of the samples.

        Raises:
            RuntimeError: There are none.
        """
        if not self.samples:
            raise RuntimeError(self._error)
        return sum(self.samples) / len(self.samples)

    def over_time(self, points: int = 20) -> list[float]:
        """The samples averaged to so many points at the most."""
        size = max(1, -(-len(self.samples) // points))
        parts = [self.samples[i : i + size] for i in range(0, len(self.samples), size)]
        return [round(sum(part) / len(part), 3) for part in parts]


def profiled(work: Callable[[], object], device: torch.device) -> Any:
    """Runs a call under torch's profiler, which is returned."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    synchronize(device)
    with profile(activities=activities) as found:
        work()
        synchronize(device)
    return found


@dataclass(frozen=True, slots=True)
class Calls:
    """What a piece of work asked of the device."""

    launches: int
    """Kernels and graphs; on the CPU the operations that were dispatched."""
    waits: int
    """Calls of the CUDA runtime that return when the card is done; 0 on the CPU."""


def count_calls(work: Callable[[], object], device: torch.device) -> Calls:
    """Counts under torch's profiler: for short work, since every event is kept."""
    names = [event.name for event in profiled(work, device).events()]
    if device.type == "cuda":
        return Calls(sum(n in _LAUNCHES for n in names), sum(n in _WAITS for n in names))
    return Calls(sum(name.startswith("aten::") for name in names), 0)


def synchronisations(work: Callable[[], object], device: torch.device) -> int:
    """Operations of a call that wait for the card, as torch's synchronisation debug mode counts.

    Always 0 on the CPU.
    """
    cuda = device.type == "cuda"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            if cuda:
                torch.cuda.set_sync_debug_mode("default")
    return sum(_SYNC_WARNING in str(warning.message) for warning in caught)


def most_expensive(found: Any, device: torch.device) -> dict[str, list[str]]:
    """The operations that took most of a profile, by where their own time was spent.

    Args:
        found: Of `profiled`.
        device: On the CPU there is no time of a device.

    Returns:
        ``host`` and, of a GPU, ``device``: "NAME: MILLISECONDS ms, CALLS calls" each.
    """
    averages = found.key_averages()
    keys = {"host": "self_cpu_time_total"}
    if device.type == "cuda":
        keys["device"] = "self_device_time_total"
    tables = {}
    for where, key in keys.items():
        top = sorted(averages, key=lambda event: -getattr(event, key))[:_MOST_OPERATIONS]
        tables[where] = [
            f"{event.key}: {getattr(event, key) / 1000:.2f} ms, {event.count} calls"
            for event in top
            if getattr(event, key) > 0
        ]
    return tables
