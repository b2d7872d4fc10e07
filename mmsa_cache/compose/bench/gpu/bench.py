"""What every step is given, and how it gets at encoders and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract.plan import RowPlan, plan_rows
from mmsa_cache.compose.extraction.readers import reader_of
from mmsa_cache.compose.session.session import Session
from mmsa_cache.config.loading import load_settings
from mmsa_cache.config.settings import Settings
from mmsa_cache.data.pairs import Sample
from mmsa_cache.features.bank import FeatureBank
from mmsa_cache.names import MODALITIES

from .results import MeasurementLog
from .sizes import Sizes
from .stores import BenchStore

CLASSES = ("positive", "neutral", "negative")
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Bench:
    """One step's surroundings."""

    sizes: Sizes
    device: torch.device
    folder: Path
    """Holds ``all`` and ``few`` (folders with an ``mmsa.toml``), posts and encoders."""
    generated: BenchStore
    real: BenchStore | None
    """Pooled features of the real data, where they were given."""
    figures: MeasurementLog

    @property
    def work(self) -> Path:
        """Folder of all posts' ``mmsa.toml``."""
        return self.folder / "all"

    @property
    def few(self) -> Path:
        """Folder of the few posts' ``mmsa.toml``."""
        return self.folder / "few"

    @property
    def compute(self) -> str:
        """What the device computes in unless it is told otherwise."""
        return "float16" if self.device.type == "cuda" else "float32"

    def settings(self, folder: Path | None = None, device: torch.device | None = None) -> Settings:
        """The settings of a folder of posts."""
        flags = {"device": str(device or self.device)}
        return load_settings(flags, folder=folder or self.work)

    def samples(self) -> list[Sample]:
        """All posts."""
        session = Session(self.settings())
        return [*session.samples("train"), *session.samples("test")]

    def rows(self, modality: str, samples: Sequence[Sample] | None = None) -> RowPlan:
        """The originals of some posts (default: of all)."""
        chosen = self.samples() if samples is None else samples
        return plan_rows(chosen, {}, "none", modality)

    def specs(self, compute: str) -> dict[str, Any]:
        """The resolved encoders by modality."""
        session = Session(self.settings())
        return {name: session.encoder(name).computed_in(compute) for name in MODALITIES}

    def readers(self) -> dict[str, Any]:
        """What reads a row, by modality."""
        return {name: reader_of(spec, 47) for name, spec in self.specs("float32").items()}

    def bank(self, device: torch.device, samples: int | None = None) -> FeatureBank:
        """The generated features of the first samples (default: of all) on a device."""
        return self.generated.bank(samples).to(device)


def largest_difference(one: Any, other: Any) -> float:
    """max |a − b| of two arrays of numbers."""
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max())


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many samples, evenly spread."""
    count = min(count, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]
