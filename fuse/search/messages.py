"""Messages between a coordinator and its workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuse.figures.records import Metric

from .baseline_record import Baseline

if TYPE_CHECKING:
    from fuse.setting import Setting

IntArray = NDArray[np.int64]


class FeatureSource(Protocol):
    """Where a process gets the features from. It is sent to workers, so it must be picklable."""

    def open(self, device: str) -> Any:
        """Opens the `mmsa_cache.features.bank.FeatureBank` on a device."""


@dataclass(frozen=True, slots=True)
class FoldSplit:
    """The rows of one training: a fold under a seed."""

    train: IntArray
    """Rows to learn from."""
    validation: IntArray
    """Rows that choose the epoch and score the training."""
    judged: IntArray
    """Rows that only judge at the end."""
    seed: int


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker is sent once: the data and functions of all requests."""

    source: FeatureSource
    splits: Sequence[FoldSplit]
    names: tuple[str, ...]
    """Class names by code."""
    metric: Metric
    fit: Callable[..., Any]
    """`fuse.training.trainer.fit_group`, or its replacement."""
    predict: Callable[..., Any]
    """`fuse.training.classifier.predict`, or its replacement."""
    baseline: Callable[..., Baseline]
    """`fuse.search.baselines.fit`, or its replacement."""
    groups: IntArray
    """Duplicate groups, (samples,)."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A setting to train on some splits, or a baseline to fit."""

    number: int
    """The trial, or any number that identifies the request."""
    setting: Setting
    groups: tuple[tuple[int, ...], ...]
    """Indices of splits. Groups are trained one after another, the splits of a group side by side.
    """
    judge: bool = False
    """Whether to predict the held-out and the judged rows in place of reporting epochs."""
    baseline: str = ""
    """A name of `baseline_record.TITLES`: fits it on the vectors that the setting names."""

    @property
    def splits(self) -> tuple[int, ...]:
        """Indices of all splits, in the order of the results."""
        return tuple(index for group in self.groups for index in group)


@dataclass(frozen=True, slots=True)
class EpochReport:
    """Intermediate scores of a trial. The coordinator answers whether to continue."""

    finished: int
    """Trainings of the request that ended before the current group."""
    epoch: int | None
    """Epochs that the current group has finished; None at its end."""
    values: tuple[float, ...]
    """Score of each training of the current group."""


@dataclass(frozen=True, slots=True)
class FoldPredictions:
    """Class probabilities of one trained model, (rows, classes)."""

    held_out: NDArray[np.float64]
    """Of the split's validation rows."""
    outer: NDArray[np.float64]
    """Of its judged rows."""


@dataclass(slots=True)
class TrainingReply:
    """The result of a request that was trained or pruned."""

    scores: list[float]
    """Of each finished training."""
    parameters: int
    seconds: float
    """Training time, without the waits for answers."""
    pruned: bool = False
    held_out: list[NDArray[np.float64]] = field(default_factory=list)
    """Class probabilities of each finished training's validation rows, (rows, classes)."""
    predictions: list[FoldPredictions] = field(default_factory=list)
    """Of each training, if the request asked to judge."""
    baseline: Baseline | None = None
    """If the request asked for one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that cannot be trained, or a worker that cannot start."""

    reason: str
    by_setting: bool = False
    """Whether the setting is the cause."""


Message = EpochReport | TrainingReply | Failure
"""What a worker sends about a request."""
