"""What every step gets: sizes, device, encoders and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract.plan import RowPlan, plan_rows
from fuse.training.task import Task
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
    """Environment of one step."""

    sizes: Sizes
    device: torch.device
    folder: Path
    """Holds posts, encoders, and the folders ``all`` and ``few`` with an ``mmsa.toml`` each."""
    generated: BenchStore
    real: BenchStore | None
    """Pooled features of real data, if given."""
    log: MeasurementLog

    @property
    def work(self) -> Path:
        """Folder of the ``mmsa.toml`` of all posts."""
        return self.folder / "all"

    @property
    def few(self) -> Path:
        """Folder of the ``mmsa.toml`` of the few posts."""
        return self.folder / "few"

    @property
    def compute(self) -> str:
        """Default precision of the device."""
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
        """The originals of some posts; default: all."""
        return plan_rows(self.samples() if samples is None else samples, {}, "none", modality)

    def specs(self, compute: str) -> dict[str, Any]:
        """The resolved encoders by modality."""
        session = Session(self.settings())
        return {name: session.encoder(name).computed_in(compute) for name in MODALITIES}

    def readers(self) -> dict[str, Any]:
        """The readers of rows, by modality."""
        return {name: reader_of(spec, 47) for name, spec in self.specs("float32").items()}

    def bank(self, device: torch.device, samples: int | None = None) -> FeatureBank:
        """The generated features of the first samples on a device; default: all samples."""
        return self.generated.bank(samples).to(device)


def fold_tasks(rows: int, members: int, folds: int = 5) -> list[Task]:
    """Tasks of members whose validation rows are every ``folds``-th row."""
    every = np.arange(rows)
    fold = every % folds
    return [
        Task(every[fold != k % folds], every[fold == k % folds], seed=k) for k in range(members)
    ]


def max_difference(a: Any, b: Any) -> float:
    """max |a − b| of two arrays."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
