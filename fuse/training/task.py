"""Training tasks, their results and progress, and the interface of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fuse.figures.records import EpochRecord
from fuse.models.classifier import Classifier
from mmsa_cache.errors import MmsaError

State = dict[str, Any]
"""Nested dicts and lists of tensors, numbers and strings."""


class TrainingError(MmsaError):
    """Training diverged."""


@dataclass(frozen=True, slots=True)
class Task:
    """The rows of one member, and its seed."""

    train: NDArray[np.int64]
    """Indices of the samples to learn from."""
    validation: NDArray[np.int64]
    """Indices of the samples that decide which epoch is the best; if empty, ``keep`` must be
    ``last``."""
    seed: int
    """Seed of initial weights, order and dropout."""
    learning_rates: tuple[float, ...] = ()
    """Learning rate of each epoch, instead of the setting's schedule; empty: as that says."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained model and its history."""

    model: Classifier
    kept: EpochRecord
    """Record of the epoch that the weights are of."""
    history: list[EpochRecord]


@dataclass(slots=True)
class Progress:
    """Progress of a member after an epoch, as stored in a checkpoint."""

    history: list[EpochRecord] = field(default_factory=list)
    best: int = -1
    """Index of the best epoch in `history`; -1 before the first."""
    best_state: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False

    def store_best(self, state: dict[str, Tensor]) -> None:
        """Copies the tensors of a model to `best_state`, over those of an earlier epoch."""
        if self.best_state:
            torch._foreach_copy_([self.best_state[name] for name in state], [*state.values()])
        else:
            self.best_state = {name: value.clone() for name, value in state.items()}

    def load_best(self, state: dict[str, Tensor]) -> None:
        """Copies the tensors of `best_state` to those of a model."""
        torch._foreach_copy_([*state.values()], [self.best_state[name] for name in state])


class Checkpoint:
    """Stores members at the end of an epoch; this base class stores nothing."""

    def load(self, index: int) -> State | None:
        """The stored state of a member of the run, or None."""
        return None

    def is_due(self, index: int, last: bool) -> bool:
        """Whether to call `save` for a member at the end of an epoch, perhaps its last."""
        return False

    def save(self, index: int, state: State) -> None:
        """Stores a member."""

    @contextmanager
    def resuming(self) -> Iterator[None]:
        """Surrounds a training that continues from loaded states, which may not fit it."""
        yield
