"""Probes of a device: launches, synchronisations, utilization, profiles."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mmsa_cache.native.timing import synchronize

from ..cost import sampling

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
"""CUDA functions that launch work, as the profiler names them."""
_WAITS = frozenset({"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"})
_SYNC_WARNING = "called a synchronizing CUDA operation"
_SAMPLE_SECONDS = 0.1
_MOST_OPERATIONS = 10
_PACKAGES = ("torch", "transformers", "timm", "optuna", "h5py", "numpy", "simplejpeg")


def machine(device: torch.device) -> dict[str, str]:
    """The machine: card, driver, processor, versions."""
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "driver": _driver() if device.type == "cuda" else "–",
        "cuda": str(torch.version.cuda) if device.type == "cuda" else "–",
        "cores": str(os.cpu_count()),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    for name in _PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = "not installed"
    return facts


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return result.stdout.splitlines()[0].strip() if result.stdout else "unknown"


@dataclass(slots=True)
class Utilization:
    """Samples of the utilization of a device, ten a second, from 0 to 1.

    On a GPU, NVML's share of time in which a kernel ran. On the CPU, this process's share of all
    cores' time.
    """

    device: torch.device
    samples: list[float] = field(default_factory=list)
    error: str = ""
    """Why there are no samples."""
    cpu_seconds: float = field(default_factory=time.process_time)
    """Processor time at the last sample."""

    def sample(self) -> None:
        """Adds a sample."""
        if self.device.type == "cuda":
            try:
                self.samples.append(torch.cuda.utilization(self.device) / 100)
            except Exception as error:  # NVML's bindings are optional
                self.error = f"{type(error).__name__}: {error}"
            return
        before, self.cpu_seconds = self.cpu_seconds, time.process_time()
        share = (self.cpu_seconds - before) / _SAMPLE_SECONDS / (os.cpu_count() or 1)
        self.samples.append(min(1.0, share))

    @property
    def mean(self) -> float:
        """Mean utilization.

        Raises:
            RuntimeError: There are none.
        """
        if not self.samples:
            raise RuntimeError(self.error)
        return sum(self.samples) / len(self.samples)

    def over_time(self, points: int = 20) -> list[float]:
        """The samples, averaged to at most so many points."""
        size = max(1, -(-len(self.samples) // points))
        groups = [self.samples[i : i + size] for i in range(0, len(self.samples), size)]
        return [round(sum(group) / len(group), 3) for group in groups]


@contextlib.contextmanager
def measure_utilization(device: torch.device) -> Iterator[Utilization]:
    """Samples the utilization of a device while the context is entered."""
    utilization = Utilization(device)
    with sampling(utilization.sample, _SAMPLE_SECONDS):
        yield utilization


def run_profiled(work: Callable[[], object], device: torch.device) -> Any:
    """Runs a call under torch's profiler; returns the profile."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    synchronize(device)
    with profile(activities=activities) as profiler:
        work()
        synchronize(device)
    return profiler


@dataclass(frozen=True, slots=True)
class DeviceCalls:
    """Calls to the device."""

    launches: int
    """Kernels and graphs; on the CPU, operations."""
    waits: int
    """CUDA calls that wait for the device; 0 on the CPU."""


def count_calls(work: Callable[[], object], device: torch.device) -> DeviceCalls:
    """Counts with torch's profiler, which keeps every event: only for short work."""
    names = [event.name for event in run_profiled(work, device).events()]
    if device.type == "cuda":
        return DeviceCalls(sum(n in _LAUNCHES for n in names), sum(n in _WAITS for n in names))
    return DeviceCalls(sum(name.startswith("aten::") for name in names), 0)


def synchronisations(work: Callable[[], object], device: torch.device) -> int:
    """Counts synchronising operations with torch's debug mode; 0 on the CPU."""
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


def most_expensive(profile: Any, device: torch.device) -> dict[str, list[str]]:
    """The operations with the most time of their own.

    Args:
        profile: A profile of `run_profiled`.
        device: The device that was profiled.

    Returns:
        "NAME: MILLISECONDS ms, CALLS calls" for the ``host`` and, for a GPU, the ``device``.
    """
    averages = profile.key_averages()
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
