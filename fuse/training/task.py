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
    """What one member learns from."""

    train: NDArray[np.int64]
    """Sample indices to learn from."""
    validation: NDArray[np.int64]
    """Sample indices that say which epoch is the best; none: ``keep`` must be ``last``."""
    seed: int
    """Of initial weights, order and dropout."""
    learning_rates: tuple[float, ...] = ()
    """Of each epoch, in the place of the setting's schedule; none: as the schedule says."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A trained model and its history."""

    model: Classifier
    kept: EpochRecord
    """Record of the epoch whose weights the model has."""
    history: list[EpochRecord]


@dataclass(slots=True)
class Progress:
    """Progress of a member after an epoch, as a checkpoint holds it."""

    history: list[EpochRecord] = field(default_factory=list)
    best: int = -1
    """Place of the best epoch in the history."""
    best_state: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False

    def keep(self, state: dict[str, Tensor]) -> None:
        """Copies the tensors of the best epoch, in the place of those of an earlier one."""
        if self.best_state:
            torch._foreach_copy_([self.best_state[name] for name in state], [*state.values()])
        else:
            self.best_state = {name: value.clone() for name, value in state.items()}

    def give(self, state: dict[str, Tensor]) -> None:
        """Copies the tensors of the best epoch to those of a model."""
        torch._foreach_copy_([*state.values()], [self.best_state[name] for name in state])


class Checkpoint:
    """Where members are kept at the end of an epoch; this one keeps nothing."""

    def load(self, place: int) -> State | None:
        """What `save` was given for the member at this place of the run, or None."""
        return None

    def wants(self, place: int, last: bool) -> bool:
        """Whether `save` is to be called at the end of an epoch, which may be a member's last."""
        return False

    def save(self, place: int, state: State) -> None:
        """Keeps a member."""

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """A training that goes on from what `load` gave, which may not fit it."""
        yield
